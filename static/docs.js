// The API page: swagger-ui on our document, and a form that gets it a token.

const page = window.SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#api",
  deepLinking: true,
  tryItOutEnabled: true,
  persistAuthorization: false,
  displayRequestDuration: true,
  defaultModelsExpandDepth: -1,
  validatorUrl: null,
});

const form = document.getElementById("sign-in");
const status = document.getElementById("signed-in");

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const { kind, contact, password } = Object.fromEntries(new FormData(form));
  const field = contact.includes("@") ? "email" : "phone";
  let answer, body;
  try {
    answer = await fetch(`/auth/${kind}/token/`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ [field]: contact, password }),
    });
    body = await answer.json();
  } catch {
    status.textContent = "The server can't be reached.";
    return;
  }
  if (!answer.ok) {
    status.textContent = body.detail ?? Object.values(body).flat().join(" ");
    return;
  }
  page.preauthorizeApiKey("bearer", body.access);
  form.elements.password.value = "";
  const minutes = Math.round(body.expires_in / 60);
  status.textContent = `Signed in, session ${body.session}: each call sends the token, for ${minutes} minutes.`;
});

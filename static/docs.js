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
const button = form.querySelector("button");

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  if (button.ariaBusy) return;
  button.ariaBusy = "true";
  status.textContent = "Signing in…";
  try {
    status.textContent = await signIn();
  } catch {
    status.textContent = "The server can't be reached.";
  }
  button.ariaBusy = null;
});

// Signs in; what came of it, in words. Throws where nobody answers.
async function signIn() {
  const { kind, contact, password } = Object.fromEntries(new FormData(form));
  const field = contact.includes("@") ? "email" : "phone";
  if (field === "email" && kind === "client") return "Clients sign in with their phone.";
  const answer = await fetch(`/auth/${kind}/token/`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ [field]: contact, password }),
  });
  const body = await answer.json();
  if (!answer.ok) return body.detail ?? Object.entries(body).map(([name, texts]) => `${name}: ${texts.join(" ")}`).join(" ");
  page.preauthorizeApiKey("bearer", body.access);
  form.elements.password.value = "";
  const minutes = Math.round(body.expires_in / 60);
  return `Signed in, session ${body.session}: each call sends the token, for ${minutes} minutes.`;
}

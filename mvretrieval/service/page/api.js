// Requests to the service. What goes wrong is a `Problem` with a sentence for people.

export class Problem extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

const KEPT_AS = "mvretrieval token";
let readsNeedToken = false;
let askForToken = async () => false;

export const token = {
  get: () => sessionStorage.getItem(KEPT_AS),
  keep: (value) => {
    sessionStorage.setItem(KEPT_AS, value);
    dispatchEvent(new Event("token-kept"));
  },
  forget: () => sessionStorage.removeItem(KEPT_AS),
};

/** `ask(reason)` gets a token from the user, keeps it, and says whether there is one. */
export function setTokenAsker(ask) {
  askForToken = ask;
}

export const needsTokenToRead = () => readsNeedToken;

/** The path of an object's part of the API; ids have slashes in them. */
export const pathOf = (part, id) => `/api/${part}/${id.split("/").map(encodeURIComponent).join("/")}`;

/** A response, or a `Problem`. Asks for the token where one is needed, and tries again. */
export async function request(path, options = {}) {
  const writes = options.method && options.method !== "GET" && !path.startsWith("/api/search");
  if (writes && !token.get() && !(await askForToken("")))
    throw new Problem("token", "Only those who have the token may change the collection.");
  for (;;) {
    const headers = new Headers(options.headers);
    const shown = writes || readsNeedToken ? token.get() : null;
    if (shown) headers.set("Authorization", `Bearer ${shown}`);
    const response = await reach(path, { ...options, headers });
    if (response.ok) return response;
    const problem = await problemOf(response);
    if (response.status !== 401) throw problem;
    if (!writes) readsNeedToken = true;
    if (!shown && token.get()) continue; // only now known to be needed
    token.forget();
    if (!(await askForToken(shown ? "That token is not the right one." : ""))) throw problem;
  }
}

export async function json(path, options = {}) {
  return (await request(path, options)).json();
}

export function sendJson(method, path, body, options = {}) {
  return json(path, {
    ...options,
    method,
    body: JSON.stringify(body),
    headers: { "Content-Type": "application/json" },
  });
}

/** Whether `value` is the service's token; asks nobody. */
export async function isRightToken(value) {
  const response = await reach("/api/jobs", { headers: { Authorization: `Bearer ${value}` } });
  if (response.status === 401) return false;
  if (!response.ok) throw await problemOf(response);
  return true;
}

async function reach(path, options) {
  try {
    return await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("unreachable", "The service cannot be reached: is it still running?");
  }
}

async function problemOf(response) {
  try {
    const { code, message } = await response.json();
    if (typeof message === "string") return new Problem(code, message);
  } catch {
    // not JSON: something between the page and the service answered
  }
  return new Problem("unknown", `The service answered with ${response.status} ${response.statusText}`);
}

/** A message as a sentence; a file's name at its beginning stays as it is. */
export function sentence(message) {
  const text = String(message).trim();
  const first = /^\p{L}+(?=[\s,:;']|$)/u.test(text) ? text.charAt(0).toUpperCase() + text.slice(1) : text;
  return /[.!?]$/.test(first) ? first : `${first}.`;
}

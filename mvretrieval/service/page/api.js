// Requests to the service. Failed requests throw a `Problem` with a code and a message for people.

export class Problem extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

const STORAGE_KEY = "mvretrieval token";
let readsNeedToken = false;
let requestToken = async () => false; // opens the token dialog

export const token = {
  get: () => sessionStorage.getItem(STORAGE_KEY),
  store: (value) => {
    sessionStorage.setItem(STORAGE_KEY, value);
    dispatchEvent(new Event("token-stored"));
  },
  forget: () => sessionStorage.removeItem(STORAGE_KEY),
};

/** `show(reason)` opens a dialog for the token, stores it, and resolves to whether there is one. */
export function setTokenDialog(show) {
  requestToken = show;
}

export const needsTokenToRead = () => readsNeedToken;

/** Path of an object in one part of the API; the slashes of an id stay. */
export const pathOf = (part, id) => `/api/${part}/${id.split("/").map(encodeURIComponent).join("/")}`;

/** A response, or a `Problem`. If the token is needed, opens the token dialog and tries again. */
export async function request(path, options = {}) {
  const writes = options.method && options.method !== "GET" && !path.startsWith("/api/search");
  if (writes && !token.get() && !(await requestToken("")))
    throw new Problem("bad_token", "The token is needed to change the collection.");
  for (;;) {
    const headers = new Headers(options.headers);
    const sent = writes || readsNeedToken ? token.get() : null;
    if (sent) headers.set("Authorization", `Bearer ${sent}`);
    const response = await fetchOrProblem(path, { ...options, headers });
    if (response.ok) return response;
    const problem = await readProblem(response);
    if (response.status !== 401) throw problem;
    if (!writes) readsNeedToken = true;
    if (!sent && token.get()) continue; // the first sign that reading needs it
    token.forget();
    if (!(await requestToken(sent ? "The token is wrong." : ""))) throw problem;
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

/** Whether `value` is the service's token; opens no dialog. */
export async function isRightToken(value) {
  const response = await fetchOrProblem("/api/jobs", { headers: { Authorization: `Bearer ${value}` } });
  if (response.status === 401) return false;
  if (!response.ok) throw await readProblem(response);
  return true;
}

async function fetchOrProblem(path, options) {
  try {
    return await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("unreachable", "The service cannot be reached: check that it runs.");
  }
}

async function readProblem(response) {
  try {
    const { code, message } = await response.json();
    if (typeof message === "string") return new Problem(code, message);
  } catch {
    // not JSON: the response of a proxy
  }
  return new Problem("unexpected_response", `The service responded with ${response.status} ${response.statusText}`);
}

/** A message as a sentence. A file name at its start is not capitalized. */
export function sentence(message) {
  const text = String(message).trim();
  const first = /^\p{L}+(?=[\s,:;']|$)/u.test(text) ? text.charAt(0).toUpperCase() + text.slice(1) : text;
  return /[.!?]$/.test(first) ? first : `${first}.`;
}

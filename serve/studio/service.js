// Talking to the service: every answer or a Problem that a person understands.

const API = "/kling/v1.6";
let key = sessionStorage.getItem("kling-key") || new URLSearchParams(location.hash.slice(1)).get("key") || "";

export class Problem extends Error {
  constructor(message, { status = 0, field = "" } = {}) {
    super(message);
    this.status = status;
    this.field = field;
  }
}

export const hasKey = () => key !== "";
export const currentKey = () => key;
export function useKey(text) {
  key = text.trim();
  sessionStorage.setItem("kling-key", key);
}

export async function call(path, options = {}) {
  const headers = { Authorization: `Bearer ${key}`, ...(options.headers || {}) };
  let answer;
  try {
    answer = await fetch(API + path, { ...options, headers });
  } catch {
    throw new Problem("The service does not answer. It may be starting again; your tasks are safe.");
  }
  if (answer.ok) return answer;
  const problem = (await answer.json().catch(() => ({}))).error || {};
  const wait = answer.headers.get("retry-after");
  const text = kindly(answer.status, problem) + (wait ? ` Try again in ${span(Number(wait))}.` : "");
  throw new Problem(text, { status: answer.status, field: problem.field || "" });
}

export const json = async (path, options) => (await call(path, options)).json();
export const blobUrl = async (path) => URL.createObjectURL(await (await call(path)).blob());

const NAMES = { resolution: "the size", duration: "the seconds", fps: "the frames a second", camera_control: "the camera",
  negative_prompt: "what is not in the picture", first_frame: "the first frame", last_frame: "the last frame",
  deadline_s: "how long it is useful", extend: "the video to continue" };

export const fieldId = (field) => field.replace(/^config\./, "").split(".")[0];

function kindly(status, problem) {
  const name = problem.field ? fieldId(problem.field) : "";
  const why = (problem.message || "").replace(`${problem.field}: `, "").replace(/^Value error, /, "");
  if (status === 401) return "This API key is not valid.";
  if (status === 403) return "This API key may look, but not make videos.";
  if (status === 404) return "It is not there any more.";
  if (status === 413) return "That is too much to send at once: use a smaller picture.";
  if (status === 422) return `Please change ${NAMES[name] || (name ? `the ${name}` : "the request")}: ${why}.`;
  if (status === 409 || status === 429 || status === 503) return `Not now: ${why}.`;
  return why ? `${why[0].toUpperCase()}${why.slice(1)}.` : `The service answered ${status}.`;
}

export function span(seconds) {
  if (seconds < 90) return `${Math.max(1, Math.ceil(seconds))} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return seconds < 129600 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86400)} days`;
}

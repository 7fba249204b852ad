// The screen: frames as they come, played in a loop until the video is there; the plan as a wireframe; the video.

import { blobUrl, call, json } from "./service.js";

const $ = (id) => document.getElementById(id);
const still = matchMedia("(prefers-reduced-motion: reduce)");
let shown = null;    // the task on the screen
let frames = [];     // what has come of it, as ImageBitmaps
let fps = 8;

export function clear(task) {
  shown = task ? task.task_id : null;
  for (const frame of frames) frame.close();
  frames = [];
  fps = task ? task.granted.fps : 8;
  see(task ? "none" : "empty");
  $("empty").textContent = task ? "Reading the prompt…" : "Your video appears here, frame by frame.";
  if (task) see("empty");
  $("live").dataset.frames = "0";
}

export function see(which) {
  for (const id of ["live", "plan", "player", "empty"]) $(id).hidden = id !== which;
  if (which !== "player") $("player").pause();
  const badge = { live: "live", plan: "plan: where things are when it begins" }[which];
  $("badge").hidden = !badge;
  $("badge").textContent = badge || "";
  $("show-plan").setAttribute("aria-pressed", String(which === "plan"));
  $("show-plan").textContent = which === "plan" ? "Hide the plan" : "Show the plan";
}

export const sees = (which) => !$(which).hidden;

export async function follow(id) {
  const reader = (await call(`/stream/${id}?format=sse`)).body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done || shown !== id) return void reader.cancel();
    text += value;
    let end;
    while ((end = text.indexOf("\n\n")) >= 0) {
      const event = text.slice(0, end);
      text = text.slice(end + 2);
      const data = event.split("\n").find((line) => line.startsWith("data: "));
      if (event.startsWith("event: frame") && data) await add(id, JSON.parse(data.slice(6)).jpeg);
    }
  }
}

async function add(id, jpeg) {
  const bytes = Uint8Array.from(atob(jpeg), (char) => char.charCodeAt(0));
  const frame = await createImageBitmap(new Blob([bytes], { type: "image/jpeg" }));
  if (shown !== id) return frame.close();
  frames.push(frame);
  $("live").dataset.frames = String(frames.length);
  if (!sees("player")) see("live");
  if (frames.length === 1) loop(id, performance.now());
  else if (still.matches) draw(frame);
}

function loop(id, began) {
  draw(frames[0]);
  const next = (now) => {
    if (shown !== id || sees("player") || frames.length === 0) return;
    if (!still.matches) draw(frames[Math.floor(((now - began) / 1000) * fps) % frames.length]);
    requestAnimationFrame(next);
  };
  requestAnimationFrame(next);
}

function draw(frame) {
  const canvas = $("live");
  if (canvas.width !== frame.width) canvas.width = frame.width;
  if (canvas.height !== frame.height) canvas.height = frame.height;
  canvas.getContext("2d").drawImage(frame, 0, 0);
}

export async function play(id) {
  const url = await blobUrl(`/content/${id}`);
  if (shown !== id) return URL.revokeObjectURL(url);
  const player = $("player");
  if (player.src) URL.revokeObjectURL(player.src);
  player.src = url;
  see("player");
  if (!still.matches) player.play().catch(() => {});  // a browser that wants a click first gets the controls
  return url;
}

// Of things by their colour, light enough for a dark ground.
const INKS = { red: "#ff7568", orange: "#ffa94d", yellow: "#ffe066", green: "#62d68b", blue: "#6ea8ff", purple: "#c39bff",
  pink: "#ff9ecb", white: "#ffffff", black: "#8d99a6", gray: "#aab4bf", brown: "#c99a6b", cyan: "#66d9e8" };

// The plan's first moment, seen by its own camera: the ground as a grid, things as boxes with the way they go.
export async function wireframe(id, aspect) {
  const plan = await json(`/plan/${id}`);
  if (shown !== id) return false;
  const canvas = $("plan");
  canvas.height = Math.round(canvas.width / aspect);
  const pen = canvas.getContext("2d");
  const key = plan.camera.keys[0];
  const turned = matrix(key.quaternion);
  const focal = canvas.height / 2 / Math.tan((key.fov_y_deg * Math.PI) / 360);
  const point = (world) => {
    const d = world.map((value, axis) => value - key.position_m[axis]);
    const [x, y, z] = [0, 1, 2].map((axis) => turned[0][axis] * d[0] + turned[1][axis] * d[1] + turned[2][axis] * d[2]);
    return z > 0.05 ? [canvas.width / 2 + (focal * x) / z, canvas.height / 2 + (focal * y) / z] : null;
  };
  const line = (from, to) => {
    const [a, b] = [point(from), point(to)];
    if (!a || !b) return;
    pen.beginPath();
    pen.moveTo(...a);
    pen.lineTo(...b);
    pen.stroke();
  };
  pen.fillStyle = "#0b1016";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.lineWidth = 1;
  pen.strokeStyle = "#26323e";
  for (let at = -6; at <= 6; at++) {
    for (let from = -6; from < 6; from++) {
      line([at, from, 0], [at, from + 1, 0]);
      line([from, at, 0], [from + 1, at, 0]);
    }
  }
  for (const thing of plan.objects) {
    pen.strokeStyle = pen.fillStyle = INKS[thing.color] || "#c9d4df";
    pen.lineWidth = 2;
    box(thing, line);
    const goes = thing.velocity_m_s;
    if (Math.hypot(...goes) > 0.05) {
      pen.lineWidth = 3;
      line(thing.position_m, thing.position_m.map((value, axis) => value + goes[axis] * 0.4));
    }
    const top = point([thing.position_m[0], thing.position_m[1], thing.position_m[2] + thing.half_size_m[2] * 1.25]);
    pen.font = "600 18px system-ui, sans-serif";
    pen.textAlign = "center";
    if (top) pen.fillText(thing.phrase, Math.min(canvas.width - 60, Math.max(60, top[0])), Math.max(50, top[1]));
  }
  pen.fillStyle = "#8794a3";
  pen.font = "16px system-ui, sans-serif";
  pen.textAlign = "left";
  pen.fillText(`camera: ${plan.camera.moves.join(", ") || "static"}`, 16, canvas.height - 16);
  canvas.setAttribute("aria-label", `The plan: ${plan.objects.map((thing) => thing.phrase).join(", ") || "no things"}`);
  return true;
}

function box(thing, line) {
  const turned = matrix(thing.quaternion);
  const corner = (signs) => thing.position_m.map((value, axis) =>
    value + [0, 1, 2].reduce((sum, own) => sum + turned[axis][own] * signs[own] * thing.half_size_m[own], 0));
  if (thing.proxy === "ball") {
    for (const [a, b] of [[0, 1], [0, 2], [1, 2]]) {
      const at = (angle) => thing.position_m.map((value, axis) => value + thing.half_size_m[0]
        * (axis === a ? Math.cos(angle) : axis === b ? Math.sin(angle) : 0));
      for (let step = 0; step < 24; step++) line(at((step * Math.PI) / 12), at(((step + 1) * Math.PI) / 12));
    }
    return;
  }
  const signs = [-1, 1];
  for (const a of signs) for (const b of signs) {
    line(corner([a, b, -1]), corner([a, b, 1]));
    line(corner([a, -1, b]), corner([a, 1, b]));
    line(corner([-1, a, b]), corner([1, a, b]));
  }
}

function matrix([w, x, y, z]) {
  return [[1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
    [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
    [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)]];
}

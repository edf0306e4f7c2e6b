// Settings of one video: the body of POST /v1/inference with one prompt, beside the flat values that a form has.

import { address, hasKey, serialise } from "./api.js";

const KEPT = "wan-lora-settings"; // in local storage
const KEY_VARIABLE = "WAN_API_KEY"; // as the command line has it
const MOST_SEED = 2 ** 32; // of those that the page draws

export const SIDES = ["high", "low"];

/** Return what a model's videos begin with. */
export function defaults(model) {
  return {
    model: model.id,
    prompt: "",
    trigger_word: "",
    neg: "",
    high: "",
    low: "",
    high_multiplier: 1,
    low_multiplier: 1,
    width: model.default_width,
    height: model.default_height,
    num_frames: model.default_num_frames,
    fps: model.default_fps,
    sample_steps: model.default_steps,
    guidance_scale: model.default_guidance_scale,
    seed: String(model.default_seed),
    recipe: "reference",
    sampler: "",
    shift: "",
    speed: "",
    output_format: "mp4",
    ctrl_img: "",
    fit: "stretch",
  };
}

/** Return what a demo's videos begin with: it renders on a CPU, and knows shapes in motion. */
export function demoDefaults(model) {
  return { ...defaults(model), prompt: "a red circle moving right", width: 128, height: 128, num_frames: 17, sample_steps: 8 };
}

/** Return the body that asks for a video with these values. What is empty is left to the service. */
export function bodyOf(values, model) {
  return {
    model: values.model,
    ...(values.trigger_word && { trigger_word: values.trigger_word }),
    loras: lorasOf(values, model),
    recipe: values.recipe,
    ...(values.speed && { speed: values.speed }),
    prompts: [
      {
        prompt: values.prompt,
        neg: values.neg,
        width: values.width,
        height: values.height,
        num_frames: values.num_frames,
        fps: values.fps,
        seed: values.seed,
        sample_steps: values.sample_steps,
        ...(values.recipe !== "draft" && { guidance_scale: values.guidance_scale }),
        ...(values.sampler && { sampler: values.sampler }),
        ...(values.shift !== "" && { shift: values.shift }),
        output_format: values.output_format,
        ...(values.ctrl_img && { ctrl_img: values.ctrl_img, fit: values.fit }),
      },
    ],
  };
}

/** Return the LoRA items of these values. */
export function lorasOf(values, model) {
  if (!isPair(model)) return values.high ? [{ path: values.high, network_multiplier: values.high_multiplier }] : [];
  const combined = values.high && values.high === values.low; // one file with both experts
  if (combined) return [{ path: values.high, network_multiplier: values.high_multiplier }];
  return SIDES.filter((side) => values[side]).map((side) => ({
    path: values[side],
    transformer: side,
    network_multiplier: values[`${side}_multiplier`],
  }));
}

/** Return the values of prompt `index` of a body, over what `base` says where the body is silent. */
export function valuesOf(body, base, index = 0) {
  const known = Object.fromEntries(
    Object.entries({ ...body, ...body.prompts[index] }).filter(([name, value]) => name in base && value !== null),
  );
  if (body.recipe === "draft") delete known.guidance_scale; // a draft has none, and what follows it wants its own
  const values = { ...base, ...known, sampler: "", shift: "", ctrl_img: "", ...known, ...lorasFrom(body.loras) };
  return { ...values, seed: String(values.seed), prompt: withTrigger(values.prompt, values.trigger_word) };
}

/** Return what a form of these values cannot say of a body, in sentences; `served` says whether its model is there. */
export function leftOut({ model, loras, prompts, strict }, served) {
  const crowded = SIDES.some((side) => loras.filter(({ transformer }) => !transformer || transformer === side).length > 1);
  return [
    !served && `The video was made by ${model}, which this service does not serve: choose a LoRA for the model that is shown.`,
    crowded && `The request has ${loras.length} LoRAs, several of them for one side: the last of each side is filled in.`,
    strict === false && "The video was made with strict off, which lets tensors without a place be left out: here they are refused.",
    prompts.length > 1 && `The request has ${prompts.length} prompts: the first is filled in.`,
  ].filter(Boolean);
}

function lorasFrom(loras) {
  const values = { high: "", low: "" };
  for (const { path, transformer, network_multiplier: multiplier } of loras) {
    for (const side of transformer ? [transformer] : SIDES) {
      values[side] = path;
      values[`${side}_multiplier`] = multiplier ?? 1;
    }
  }
  return values;
}

// The service tells prompts with the trigger word in place. Back in its placeholder, the word can be changed again.
function withTrigger(prompt, word) {
  const clear = word && word.length > 2 && !prompt.includes("[trigger]"); // a short one may be part of other words
  return clear ? prompt.replaceAll(word, "[trigger]") : prompt;
}

/** Return whether the model has an expert for high and one for low noise. */
export function isPair(model) {
  return model.experts.length > 1;
}

/** Draw a seed. */
export function drawSeed() {
  return String(Math.floor(Math.random() * MOST_SEED));
}

/** Return the number of frames that `seconds` take: the first frame, and one for each tick after it. */
export function framesOf(seconds, fps) {
  return Math.max(1, Math.round(seconds * fps) + 1);
}

/** Keep values for the next visit; the image is too large for that. */
export function keep(values) {
  localStorage.setItem(KEPT, JSON.stringify({ ...values, ctrl_img: "" }));
}

/** Return the values of the last visit, or null. */
export function kept() {
  try {
    return JSON.parse(localStorage.getItem(KEPT));
  } catch {
    return null; // written by another version, or by hand
  }
}

/** Return a body as text to be copied: {name: text}. */
export function asText(body) {
  const json = serialise(body, 2);
  const server = JSON.stringify(address("").replace(/\/$/, ""));
  const keyed = hasKey(); // the key itself stays out of what is shown and sent around
  return {
    curl: [
      `curl -s ${address("v1/inference")}`,
      ...(keyed ? [`-H "authorization: Bearer $${KEY_VARIABLE}"`] : []),
      "-H 'content-type: application/json'",
      `-d '${json.replaceAll("'", "'\\''")}'`,
    ].join(" \\\n  "),
    Python: [
      ...(keyed ? ["import os", ""] : []),
      "from serve_app.client import Client, InferenceRequest",
      "",
      `request = InferenceRequest.model_validate(${python(body)})`,
      `with Client(${server}${keyed ? `, os.environ["${KEY_VARIABLE}"]` : ""}) as client:`,
      "    for video in client.render(request).outputs.videos:",
      '        client.download(video, f"video_{video.index}.{video.format.extension}")',
    ].join("\n"),
    JSON: json,
  };
}

function python(value, indent = "") {
  const deeper = `${indent}    `;
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (Array.isArray(value)) {
    return value.length ? `[\n${value.map((item) => `${deeper}${python(item, deeper)},\n`).join("")}${indent}]` : "[]";
  }
  if (typeof value === "object") {
    const items = Object.entries(value).map(([name, item]) => {
      const number = name === "seed" && typeof item === "string";
      return `${deeper}${JSON.stringify(name)}: ${number ? item : python(item, deeper)},\n`;
    });
    return `{\n${items.join("")}${indent}}`;
  }
  return JSON.stringify(value);
}

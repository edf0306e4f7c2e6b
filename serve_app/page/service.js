// What the service is and has, read once: its models, and the LoRAs under `lora_root`.

import { get } from "./api.js";
import { choicesFor } from "./pairs.js";

class Service extends EventTarget {
  models = [];
  loras = { pairs: [], files: [], uploads_allowed: false };
  notice = null;

  /** Read it, and tell what listens to "loras". */
  async load() {
    [{ models: this.models }, this.loras] = await Promise.all([get("v1/models"), get("v1/loras")]);
    this.notice = this.models[0].notice;
    this.dispatchEvent(new Event("loras"));
  }

  /** Read the LoRAs again. */
  async reload() {
    this.loras = await get("v1/loras");
    this.dispatchEvent(new Event("loras"));
  }

  /** Return whether there is a model of that id. */
  serves(id) {
    return this.models.some((model) => model.id === id);
  }

  /** Return the model of that id; the first one where there is none. */
  model(id) {
    return this.models.find((model) => model.id === id) ?? this.models[0];
  }

  /** Return the files that no model can use: {path, problem}. */
  get unusable() {
    return this.loras.files.filter(({ problem }) => problem);
  }

  /** Return what can be picked for a model; see `choicesFor`. */
  choices(model) {
    return choicesFor(this.loras, model);
  }
}

export const service = new Service();

// Shows openapi.json. Everything goes in as text: what a description says can't become a page's code.
"use strict";
const make = (tag, text, parent) => {
  const element = document.createElement(tag);
  if (text) element.textContent = text;
  if (parent) parent.append(element);
  return element;
};
const whole = (schema, all, depth) => {
  if (!schema || typeof schema !== "object" || depth > 6) return schema;
  if (schema.$ref) return whole(all[schema.$ref.split("/").pop()], all, depth + 1);
  if (Array.isArray(schema)) return schema.map((part) => whole(part, all, depth + 1));
  return Object.fromEntries(Object.entries(schema).map(([name, part]) => [name, whole(part, all, depth + 1)]));
};
const block = (title, value, parent) => {
  make("p", title, parent).className = "about";
  make("pre", JSON.stringify(value, null, 2), parent);
};
const show = (api) => {
  document.getElementById("about").textContent = api.info.description;
  const main = document.getElementById("all");
  const schemas = api.components.schemas;
  const groups = new Map();
  for (const [path, verbs] of Object.entries(api.paths))
    for (const [verb, op] of Object.entries(verbs)) {
      const tag = op.tags[0];
      groups.set(tag, [...(groups.get(tag) || []), { path, verb, op }]);
    }
  for (const [tag, all] of groups) {
    make("h2", tag, main);
    for (const { path, verb, op } of all) {
      const details = make("details", "", main);
      const summary = make("summary", "", details);
      make("b", verb.toUpperCase(), summary);
      make("code", path, summary);
      make("p", op.summary + " " + op.description, details);
      if (op.parameters.length) block("Parameters", op.parameters, details);
      const body = op.requestBody && op.requestBody.content["application/json"];
      if (body) block("Body", whole(body.schema, schemas, 0), details);
      for (const [status, answer] of Object.entries(op.responses))
        for (const [kind, content] of Object.entries(answer.content))
          block("Answer " + status + ", " + kind, whole(content.schema, schemas, 0), details);
    }
  }
};
fetch("openapi.json").then((answer) => answer.json()).then(show, (error) => {
  document.getElementById("about").textContent = "The description can't be read: " + error;
});

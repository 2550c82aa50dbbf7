"use strict";
// Renders /openapi.json: every path with its parameters, bodies and answers. Text only, no markup from the document.
(async () => {
  const el = (tag, attrs = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [key, value] of Object.entries(attrs)) {
      if (key === "class") node.className = value; else node.setAttribute(key, value);
    }
    node.append(...children.filter((c) => c !== null && c !== undefined));
    return node;
  };
  const main = document.getElementById("docs");
  let doc;
  try {
    const response = await fetch("/openapi.json");
    if (!response.ok) throw new Error(`HTTP ${response.status}`);
    doc = await response.json();
  } catch (error) {
    main.replaceChildren(el("p", { class: "notice" }, `The document could not be loaded: ${error.message}`));
    return;
  }
  const resolve = (schema) => {
    const match = schema && schema.$ref && /^#\/components\/schemas\/(.+)$/.exec(schema.$ref);
    return match ? { name: match[1], schema: (doc.components.schemas || {})[match[1]] } : { name: null, schema };
  };
  const typeName = (schema) => {
    if (!schema) return "";
    const { name } = resolve(schema);
    if (name) return name;
    if (schema.type === "array" || (Array.isArray(schema.type) && schema.type.includes("array"))) return `list of ${typeName(schema.items)}`;
    if (schema.oneOf || schema.anyOf) return (schema.oneOf || schema.anyOf).map(typeName).join(" or ");
    return [].concat(schema.type || "any").join(" or ");
  };
  const fields = (schema, depth = 0) => {
    const { schema: body } = resolve(schema);
    if (!body || !body.properties || depth > 2) return null;
    const required = new Set(body.required || []);
    return el("div", { class: "scroll" }, el("table", {}, el("tbody", {}, ...Object.entries(body.properties).map(([name, property]) => {
      const inner = property.items ? fields(property.items, depth + 1) : fields(property, depth + 1);
      return el("tr", {}, el("td", {}, el("code", {}, name), required.has(name) ? "" : " ?"), el("td", {}, typeName(property)),
        el("td", {}, property.description || (resolve(property).schema || {}).description || "", inner));
    }))));
  };
  const parameters = (list) => el("div", { class: "scroll" }, el("table", {}, el("tbody", {}, ...list.map((p) =>
    el("tr", {}, el("td", {}, el("code", {}, p.name)), el("td", {}, p.in + (p.required ? ", required" : "")),
      el("td", {}, typeName(p.schema)), el("td", {}, p.description || ""))))));
  const content = (body) => Object.entries(body || {}).map(([type, media]) =>
    el("div", {}, el("p", {}, el("code", {}, type), media.schema ? ` ${typeName(media.schema)}` : ""), fields(media.schema)));
  const operation = (path, verb, op) => {
    const inner = el("div", { class: "inner" });
    if (op.description) inner.append(el("p", {}, op.description));
    if (op.parameters && op.parameters.length) inner.append(el("h2", {}, "Parameters"), parameters(op.parameters));
    if (op.requestBody) inner.append(el("h2", {}, "Body"), ...content(op.requestBody.content));
    inner.append(el("h2", {}, "Answers"));
    for (const [status, answer] of Object.entries(op.responses || {})) {
      inner.append(el("p", {}, el("b", {}, status), ` ${answer.description || ""}`), ...content(answer.content));
    }
    return el("details", { class: "op", id: op.operationId || `${verb}${path}` },
      el("summary", {}, el("span", { class: `verb ${verb}` }, verb.toUpperCase()), el("span", { class: "path" }, path),
        el("span", { class: "summary" }, op.summary || "")), inner);
  };
  const groups = new Map();
  for (const [path, item] of Object.entries(doc.paths)) {
    for (const verb of ["get", "post", "put", "patch", "delete"]) {
      if (!item[verb]) continue;
      const tag = (item[verb].tags || ["other"])[0];
      if (!groups.has(tag)) groups.set(tag, []);
      groups.get(tag).push(operation(path, verb, item[verb]));
    }
  }
  const info = doc.info;
  main.replaceChildren(el("h1", {}, `${info.title} ${info.version}`), el("p", {}, info.description || ""),
    el("p", {}, "Try it: ", el("code", {}, `curl ${location.origin}/v1/metrics`)));
  const order = ["metrics", "events", "entities", "catalog", "contracts", "dead letters", "health"];
  const rank = (tag) => order.includes(tag) ? order.indexOf(tag) : order.length;
  for (const [tag, list] of [...groups].sort((a, b) => rank(a[0]) - rank(b[0]))) main.append(el("h2", {}, tag), ...list);
  if (location.hash) { const open = document.getElementById(location.hash.slice(1)); if (open) { open.open = true; open.scrollIntoView(); } }
})();

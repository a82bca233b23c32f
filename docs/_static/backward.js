// Steps through `backward` on one small expression: what minitl/autograd.py does, value by value.
"use strict";
(function () {
  const page = document.getElementById("backward");
  if (!page) return;

  // Tensors in the order in which they are computed. An edge is [input, derivative for that input,
  // the derivative in words].
  const TENSORS = [
    { name: "w", text: "w" },
    { name: "x", text: "x" },
    { name: "product", text: "w * x", of: (v) => v.w * v.x,
      edges: [["w", (v) => v.x, "times x"], ["x", (v) => v.w, "times w"]] },
    { name: "error", text: "product - 5", of: (v) => v.product - 5,
      edges: [["product", () => 1, "times 1"]] },
    { name: "square", text: "error * error", of: (v) => v.error * v.error,
      edges: [["error", (v) => v.error, "times error"], ["error", (v) => v.error, "times error"]] },
    { name: "loss", text: "square + w", of: (v) => v.square + v.w,
      edges: [["square", () => 1, "times 1"], ["w", () => 1, "times 1"]] },
  ];
  const byName = Object.fromEntries(TENSORS.map((t) => [t.name, t]));
  let state;

  function number(value) {
    return value === undefined ? "" : String(Math.round(value * 1e6) / 1e6);
  }

  function begin() {
    const values = { w: Number(inputs.w.value), x: Number(inputs.x.value) };
    state = { values, done: 0, gradients: {}, waiting: {}, steps: null, at: -1 };
    say("Forwards: compute one tensor after the other.");
    show();
  }

  // All steps of the way back, in the order of minitl: a tensor is taken from `ready`, each of its
  // edges hands a share to its input, and an input whose last share has come is ready.
  function stepsBack() {
    const waiting = {};
    for (const t of TENSORS) for (const [to] of t.edges || []) waiting[to] = (waiting[to] || 0) + 1;
    state.waiting = Object.assign({}, waiting);
    const steps = [], ready = ["loss"];
    while (ready.length) {
      const tensor = byName[ready.pop()];
      for (const [to, derivative, why] of tensor.edges || []) {
        steps.push({ from: tensor.name, to, derivative, why });
        waiting[to] -= 1;
        if (waiting[to] === 0) ready.push(to);
      }
    }
    return steps;
  }

  function next() {
    const v = state.values;
    while (state.done < TENSORS.length && !TENSORS[state.done].of) state.done += 1;
    if (state.done < TENSORS.length) {
      const t = TENSORS[state.done];
      v[t.name] = t.of(v);
      state.done += 1;
      const edges = t.edges.map(([to]) => to).join(" and ");
      say(`${t.name} = ${t.text} = ${number(v[t.name])}. It remembers: made from ${edges}.`);
    } else if (!state.steps) {
      state.steps = stepsBack();
      state.gradients.loss = 1;
      say("Backwards. The cotangent of the loss is 1; the shares that each tensor will get are counted.");
    } else if (state.at + 1 < state.steps.length) {
      state.at += 1;
      const { from, to, derivative, why } = state.steps[state.at];
      const g = state.gradients[from], share = g * derivative(v), before = state.gradients[to];
      state.gradients[to] = (before || 0) + share;
      state.waiting[to] -= 1;
      const added = before === undefined ? "" : `, added to ${number(before)}`;
      const left = state.waiting[to];
      const then = left ? `${to} waits for ${left} more.` : `${to} has all its shares.`;
      say(`${from} hands ${to} its gradient ${number(g)} ${why}: ${number(share)}${added}. ${then}`);
    } else {
      say(`Done: dloss/dw = ${number(state.gradients.w)}, dloss/dx = ${number(state.gradients.x)}.`);
    }
    show();
  }

  function element(kind, text, parent, more) {
    const made = Object.assign(document.createElement(kind), more);
    if (text !== null) made.textContent = text;
    parent.appendChild(made);
    return made;
  }

  function say(text) {
    told.textContent = text;
  }

  function show() {
    body.textContent = "";
    const step = state.at >= 0 ? state.steps[state.at] : null;
    for (const t of TENSORS) {
      const row = element("tr", null, body);
      if (step && t.name === step.from) row.className = "from";
      if (step && t.name === step.to) row.className = "to";
      element("td", t.name, row);
      element("td", t.of ? t.text : "leaf", row);
      element("td", number(state.values[t.name]), row, { id: `value-${t.name}` });
      const left = state.waiting[t.name] || "";
      element("td", String(left), row, { id: `waiting-${t.name}` });
      element("td", number(state.gradients[t.name]), row, { id: `gradient-${t.name}` });
    }
    forward.disabled = told.textContent.startsWith("Done");
  }

  element("style", `#backward table { border-collapse: collapse; margin: 1em 0 }
    #backward td, #backward th { padding: .3em .9em; border: 1px solid #888; text-align: left }
    #backward .from td { background: #cce3f2; color: #000 }
    #backward .to td { background: #ffe2b8; color: #000 }
    #backward .from td:first-child::after { content: " hands on" }
    #backward .to td:first-child::after { content: " receives" }
    #backward input { width: 5em }
    #backward button, #backward input { font: inherit; padding: .2em .6em }
    #told { min-height: 3em }`, page);
  const form = element("p", null, page), inputs = {};
  for (const [name, value] of [["w", 3], ["x", 2]]) {
    const label = element("label", `${name} = `, form), id = `input-${name}`;
    inputs[name] = element("input", null, label, { type: "number", step: "any", value, id });
    inputs[name].addEventListener("input", begin);
    form.append(" ");
  }
  const forward = element("button", "Next", form, { id: "next", type: "button" });
  form.append(" ");
  const again = element("button", "From the start", form, { id: "again", type: "button" });
  const told = element("p", null, page, { id: "told" });
  told.setAttribute("role", "status");
  const table = element("table", null, page);
  const head = element("tr", null, element("thead", null, table));
  for (const title of ["tensor", "made by", "value", "shares to come", "gradient"]) {
    element("th", title, head);
  }
  const body = element("tbody", null, table);
  forward.addEventListener("click", next);
  again.addEventListener("click", begin);
  begin();
})();

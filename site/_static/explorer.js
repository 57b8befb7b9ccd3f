// The results explorer: check boxes choose rows of the tables and what the charts show; the address keeps the choice.
(() => {
  const runs = JSON.parse(document.getElementById("runs-data").textContent);
  const place = document.getElementById("explorer");
  const facets = { study: "Studies", network: "Networks", norm: "Norms" };
  const measures = {
    train_accuracy: "training accuracy (%)", val_accuracy: "validation accuracy (%)",
    train_loss: "training loss (nats)", val_loss: "validation loss (nats)", lr: "learning rate",
  };
  const norms = [...new Set(runs.map((run) => run.norm))];
  const networks = [...new Set(runs.map((run) => run.network))];
  const isDark = () => document.documentElement.dataset.theme === "dark";
  const colours = () => (isDark() ? ["#56b4e9", "#f0b040", "#3fcf9f", "#e0a0d0"] : ["#0173b2", "#c77f00", "#029e73", "#b45fa3"]);

  const build = (tag, attributes = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), attributes);
    element.append(...children);
    return element;
  };

  // The choice at first: the reference runs of the network that has most of them.
  const first = runs.filter((run) => run.study === runs[0].study);
  const often = (network) => first.filter((run) => run.network === network).length;
  const choice = {
    study: [runs[0].study], network: [networks.reduce((a, b) => (often(b) > often(a) ? b : a))], norm: norms, measure: ["train_accuracy"],
  };

  function readAddress() {
    for (const [name, value] of new URLSearchParams(location.hash.slice(1))) {
      if (name in choice) choice[name] = value.split("|");
    }
  }

  function writeAddress() {
    const parts = Object.entries(choice).map(([name, values]) => [name, values.join("|")]);
    history.replaceState(null, "", "#" + new URLSearchParams(parts));
  }

  function controls() {
    const boxes = Object.entries(facets).map(([name, title]) => {
      const values = [...new Set(runs.map((run) => run[name]))];
      const labels = values.map((value) => {
        const box = build("input", { type: "checkbox", name, value });
        return build("label", {}, box, " " + value);
      });
      return build("fieldset", {}, build("legend", { textContent: title }), ...labels);
    });
    const options = Object.entries(measures).map(([value, textContent]) => build("option", { value, textContent }));
    const select = build("select", { name: "measure" }, ...options);
    const form = build("form", { className: "tool" }, ...boxes, build("label", {}, "Curves show the ", select));
    form.addEventListener("change", () => {
      const chosen = new FormData(form);
      for (const name in choice) choice[name] = chosen.getAll(name);
      writeAddress();
      show();
    });
    form.addEventListener("submit", (event) => event.preventDefault());
    return form;
  }

  const form = controls();
  const count = build("p", { role: "status" });
  const curves = build("div", { className: "chart" });
  const ends = build("div", { className: "chart" });
  place.append(form, count, build("h2", { textContent: "Curves" }), curves,
    build("h2", { textContent: "Final accuracies" }),
    build("p", { textContent: "A point is a run, at its test accuracy or, where it has none, its validation accuracy; "
      + "the bar is the mean ± standard deviation where several seeds were run." }), ends);
  place.hidden = false;

  const chosen = (row) => Object.keys(facets).every((name) => !(name in row) || choice[name].includes(row[name]));

  function filterTable(id, rows) {
    document.querySelectorAll(`#${id} tbody tr`).forEach((line, index) => { line.hidden = !chosen(rows[index]); });
  }

  function summaryRows() {
    return [...document.querySelectorAll("#summary tbody tr")].map((line) => {
      const [network, norm] = line.cells;
      return { network: network.textContent, norm: norm.textContent };
    });
  }

  function theme() {
    const style = getComputedStyle(document.documentElement);
    const text = style.getPropertyValue("--pst-color-text-base").trim();
    const line = style.getPropertyValue("--pst-color-border").trim();
    const axis = { labelColor: text, titleColor: text, gridColor: line, domainColor: line, tickColor: line };
    return { background: null, axis, legend: { labelColor: text, titleColor: text, symbolBaseStrokeColor: text, orient: "bottom", columns: 3 }, view: { stroke: line } };
  }

  // Norms keep their colour and shape whatever is chosen; the legends name what is shown.
  const legend = (shown, field, more) => ({ ...more, values: [...new Set(shown.map((run) => run[field]))] });
  const colour = (shown) => ({ field: "norm", type: "nominal", scale: { domain: norms, range: colours() }, legend: legend(shown, "norm") });
  const shape = (shown) => ({ field: "norm", type: "nominal", scale: { domain: norms }, legend: legend(shown, "norm") });
  const told = ["run", "study", "seed", "epoch"].map((field) => ({ field, type: "nominal" }));

  function curveChart(shown) {
    const measure = choice.measure[0];
    const factor = measure.endsWith("accuracy") ? 100 : 1;
    const values = shown.flatMap((run, index) => run.curves.filter((point) => point[measure] !== null).map((point) => ({
      index, run: run.run, study: run.study, network: run.network, norm: run.norm, seed: run.seed,
      epoch: point.epoch, value: factor * point[measure],
    })));
    const dash = {
      field: "network", type: "nominal", scale: { domain: networks }, legend: legend(shown, "network", { symbolType: "stroke", symbolSize: 400 }),
    };
    const tooltip = [...told, { field: "value", type: "quantitative", format: ".4~f", title: measures[measure] }];
    return {
      description: `${measures[measure]} by epoch of ${shown.length} runs; the numbers are in the tables below`,
      data: { name: "shown", values }, width: "container", height: 320,
      encoding: {
        x: { field: "epoch", type: "quantitative", title: "epoch", axis: { tickMinStep: 1, tickCount: 10 } },
        y: { field: "value", type: "quantitative", title: measures[measure], scale: { zero: false } },
        color: colour(shown),
      },
      layer: [
        { mark: { type: "line", strokeWidth: 1.5 }, encoding: { detail: { field: "index" }, strokeDash: dash } },
        { mark: { type: "point", filled: true, opacity: 1, size: 25 }, encoding: { shape: shape(shown), tooltip } },
      ],
    };
  }

  function endChart(shown) {
    const studies = new Set(shown.map((run) => run.study));
    const values = shown.map((run) => {
      const test = run["test accuracy (%)"], words = [run.run, `${run.epochs} epochs`];
      if (studies.size > 1) words.push(run.study);
      if (test === null) words.push("validation");
      return { ...run, curves: null, label: words.join(", "), accuracy: test ?? run["validation accuracy (%)"] };
    }).filter((run) => run.accuracy !== null);
    const labels = values.map((run) => run.label);
    const several = values.filter((run) => labels.indexOf(run.label) !== labels.lastIndexOf(run.label));
    const x = { field: "accuracy", type: "quantitative", title: "accuracy (%)", scale: { zero: false }, axis: { tickCount: 8, labelOverlap: true } };
    const y = { field: "label", type: "nominal", title: null, sort: null, axis: { labelLimit: 0.45 * ends.clientWidth } };
    const bars = { data: { values: several }, mark: { type: "errorbar", extent: "stdev", ticks: true }, encoding: { x, y, color: colour(shown) } };
    const tooltip = [...told.slice(0, 3), { field: "accuracy", type: "quantitative" }];
    const points = {
      mark: { type: "point", filled: true, opacity: 1, size: 60 }, encoding: { x, y, color: colour(shown), shape: shape(shown), tooltip },
    };
    return {
      description: `Final accuracy of ${values.length} runs; the numbers are in the tables below`,
      data: { name: "shown", values }, width: "container", height: 22 * new Set(labels).size,
      layer: several.length ? [points, bars] : [points],
    };
  }

  async function draw(target, spec, empty) {
    if (!spec.data.values.length) { target.replaceChildren(build("p", { textContent: empty })); return; }
    const { view } = await vegaEmbed(target, spec, { actions: false, renderer: "svg", config: theme() });
    target.view = view;
  }

  function show() {
    for (const box of form.querySelectorAll("input")) box.checked = choice[box.name].includes(box.value);
    form.measure.value = choice.measure[0];
    const shown = runs.filter(chosen);
    count.textContent = `${shown.length} of ${runs.length} runs chosen`;
    filterTable("runs", runs);
    filterTable("summary", summaryRows());
    place.ready = Promise.all([
      draw(curves, curveChart(shown), "None of the chosen runs has this measure: choose other runs or another measure."),
      draw(ends, endChart(shown), "No run is chosen."),
    ]);
  }

  readAddress();
  show();
  addEventListener("hashchange", () => { readAddress(); show(); });
  new MutationObserver(show).observe(document.documentElement, { attributeFilter: ["data-theme"] });
})();

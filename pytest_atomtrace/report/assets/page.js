// Filters, sorting, folding, copying, and charts of a case once it is opened.
(() => {
  const { data, make, charts, Timeline } = atomtrace;
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  // A case draws its charts when it is opened first.
  const ready = new Set();
  const fill = (element) => {
    const facts = data.cases[Number(element.dataset.case)];
    if (!element.open || ready.has(element) || !facts) return;
    ready.add(element);
    const steps = element.querySelector('[data-part="steps"]'), timeline = element.querySelector('[data-part="timeline"]');
    if (steps && facts.series) new charts.Steps(steps, facts);
    if (timeline && facts.timelines) new Timeline(timeline, facts);
  };
  for (const element of all("details.case")) {
    element.addEventListener("toggle", () => fill(element));
    fill(element);
  }
  const go = (id) => {
    const element = document.getElementById(id);
    if (!element || !element.matches("details.case")) return;
    element.hidden = false;
    element.open = true;
    fill(element);
    element.scrollIntoView();
    element.querySelector("summary").focus({ preventScroll: true });
  };
  addEventListener("hashchange", () => go(location.hash.slice(1)));
  if (location.hash) go(location.hash.slice(1));
  for (const row of all("tr.go")) {
    row.addEventListener("click", (event) => {
      const link = row.querySelector("a");
      if (event.target !== link && !String(getSelection())) { history.replaceState(null, "", link.hash); go(link.hash.slice(1)); }
    });
  }
  for (const link of all("a[href^='#case-']")) link.addEventListener("click", () => go(link.hash.slice(1)));

  // Filters: by text and by outcome, over cases and checks alike.
  const search = document.getElementById("filter"), clear = document.getElementById("clear");
  const chips = all(".chip"), things = all("tr.go, details.case, .check");
  let outcome = "";
  const filter = () => {
    const words = (search ? search.value : "").toLowerCase().split(/\s+/).filter(Boolean);
    const seen = { case: 0, check: 0 }, total = { case: 0, check: 0 };
    for (const thing of things) {
      const text = thing.dataset.text.toLowerCase();
      const fits = (!outcome || thing.dataset.outcome === outcome) && words.every((one) => text.includes(one));
      thing.hidden = !fits;
      const sort = thing.matches("tr") ? "case" : thing.matches(".check") ? "check" : "";
      if (sort) { total[sort]++; seen[sort] += fits; }
    }
    const active = Boolean(outcome || words.length);
    if (clear) clear.hidden = !active;
    for (const sort of ["case", "check"]) {
      const box = document.getElementById(`${sort}s-shown`);
      if (box) box.textContent = active ? `${seen[sort]} of ${total[sort]} ${sort}s` : "";
    }
  };
  if (search) search.addEventListener("input", filter);
  for (const chip of chips) {
    chip.addEventListener("click", () => {
      outcome = outcome === chip.dataset.outcome ? "" : chip.dataset.outcome;
      for (const other of chips) other.setAttribute("aria-pressed", String(other.dataset.outcome === outcome));
      filter();
    });
  }
  if (clear) clear.addEventListener("click", () => {
    outcome = search.value = "";
    for (const chip of chips) chip.setAttribute("aria-pressed", "false");
    filter();
    search.focus();
  });
  addEventListener("keydown", (event) => {
    if (event.key !== "/" || !search || event.ctrlKey || event.metaKey || event.target.matches("input, select, textarea, canvas")) return;
    event.preventDefault();
    search.focus();
  });

  const unfold = document.getElementById("unfold");
  if (unfold) unfold.addEventListener("click", () => {
    const open = unfold.textContent === "Unfold all";
    for (const element of all("details.check")) element.open = open;
    unfold.textContent = open ? "Fold all" : "Unfold all";
  });

  // Tables: a press on a header sorts, a second one turns the order round.
  const FEW = 12;
  const refold = (table) => [...table.tBodies[0].rows].forEach((row, place) => row.classList.toggle("extra", place >= FEW));
  for (const table of all("table.sortable")) {
    const heads = all("thead th", table);
    heads.forEach((th, place) => th.querySelector("button").addEventListener("click", () => {
      const body = table.tBodies[0], rows = [...body.rows];
      const value = (row) => { const cell = row.cells[place]; return cell.dataset.v !== undefined ? (cell.dataset.v === "" ? null : Number(cell.dataset.v)) : cell.textContent.trim(); };
      const numbers = rows.every((row) => typeof value(row) !== "string");
      const old = th.getAttribute("aria-sort"), way = old ? (old === "ascending" ? -1 : 1) : numbers && !th.classList.contains("l") ? -1 : 1;
      for (const other of heads) other.removeAttribute("aria-sort");
      th.setAttribute("aria-sort", way > 0 ? "ascending" : "descending");
      rows.sort((a, b) => {
        const x = value(a), y = value(b);
        // What has no figure stays last either way.
        if (x === null || y === null) return (x === null) - (y === null);
        return way * (typeof x === "number" ? x - y : x.localeCompare(y, "en", { numeric: true }));
      });
      body.append(...rows);
      if (table.matches(".foldable")) refold(table);
    }));
    if (table.matches(".foldable") && table.tBodies[0].rows.length > FEW + 3) {
      refold(table);
      table.classList.add("folded");
      const more = make("button", "ghost", `Show all ${table.tBodies[0].rows.length}`);
      more.type = "button";
      more.addEventListener("click", () => {
        const folded = table.classList.toggle("folded");
        more.textContent = folded ? `Show all ${table.tBodies[0].rows.length}` : `Show the first ${FEW}`;
      });
      table.closest(".scroll").after(more);
    }
  }

  for (const button of all(".expand")) {
    button.addEventListener("click", () => {
      const open = button.getAttribute("aria-expanded") !== "true";
      button.setAttribute("aria-expanded", String(open));
      if (open) button.after(make("code", "raw", button.dataset.raw));
      else button.nextElementSibling.remove();
    });
  }

  const copyText = async (text) => {
    try { await navigator.clipboard.writeText(text); return true; } catch { /* a page from a file may not: the old way */ }
    const area = make("textarea", "visually-hidden", text);
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  };
  for (const button of all(".copy")) {
    button.addEventListener("click", async () => {
      const said = button.textContent, text = button.dataset.copy || button.previousElementSibling.textContent;
      button.textContent = (await copyText(text)) ? "copied" : "select and copy by hand";
      setTimeout(() => { button.textContent = said; }, 1600);
    });
  }

  // Paper shows everything.
  addEventListener("beforeprint", () => {
    for (const element of all("details")) { element.dataset.was = element.open ? "1" : ""; element.open = true; }
    all("details.case").forEach(fill);
    for (const table of all("table.folded")) { table.classList.remove("folded"); table.dataset.folded = "1"; }
  });
  addEventListener("afterprint", () => {
    for (const element of all("details")) element.open = element.dataset.was === "1";
    for (const table of all("table[data-folded]")) table.classList.add("folded");
  });
})();

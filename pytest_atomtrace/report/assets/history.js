// One value a run, with the band of the baseline in force then and a line where something changed.
(() => {
  const { data, duration, make, token, drawn, showTip } = atomtrace;
  const KINDS = { baseline: "--accent", environment: "--inconclusive" };
  const worded = (value) => data.unit === "ns" ? duration(value) : `${Math.round(value).toLocaleString("en")} ${data.unit}`;
  const UNITS = [["ns", 1, 1e3], ["us", 1e3, 1e6], ["ms", 1e6, 1e9], ["s", 1e9, Infinity]];

  class Series {
    constructor(root, points) {
      this.points = points;
      // The unit of the axis is that of most of its values.
      const usual = points.map((one) => one.value).filter((one) => one != null).sort((a, b) => a - b);
      [this.unit, this.scale] = data.unit === "ns" ? UNITS.find((one) => (usual[usual.length >> 1] || 0) < one[2]) : [data.unit, 1];
      const days = new Set(points.map((one) => one.when.slice(0, 10)));
      this.tick = (one) => days.size * 2 > points.length ? one.when.slice(0, 10) : one.when.slice(5);
      this.box = root.querySelector(".chart");
      this.legend = root.querySelector(".legend");
      this.explain();
      this.draw();
      drawn.add(() => this.draw());
      new ResizeObserver(() => {
        if (this.plot && Math.abs(this.plot.width - this.box.clientWidth) > 2) this.plot.setSize({ width: this.box.clientWidth, height: 300 });
      }).observe(this.box);
    }

    explain() {
      const key = (colour, text) => {
        const line = make("span", "key"), mark = make("span", "sw");
        mark.style.setProperty("--c", `var(${colour})`);
        line.append(mark, text);
        this.legend.append(line);
      };
      if (this.points.some((one) => one.low != null)) key("--band", "what the baseline of then allows one launch");
      for (const [kind, colour] of Object.entries(KINDS)) {
        if (this.points.some((one) => one.marks.some((mark) => mark[0] === kind))) key(colour, `${kind} changed`);
      }
      this.legend.append(make("span", "key", "the axis does not start at zero"));
    }

    draw() {
      if (this.plot) this.plot.destroy();
      this.box.replaceChildren();
      const x = this.points.map((_, i) => i), at = (key) => this.points.map((one) => one[key] == null ? null : one[key] / this.scale);
      const seen = ["value", "low", "high"].flatMap((key) => at(key)).filter((one) => one != null);
      const low = Math.min(...seen), high = Math.max(...seen), pad = (high - low || Math.abs(high) * 0.02 || 1) * 0.08;
      const common = { stroke: token("--muted"), grid: { stroke: token("--grid"), width: 1 }, ticks: { stroke: token("--grid") }, font: "12px system-ui, sans-serif" };
      const options = {
        width: Math.max(220, this.box.clientWidth), height: 300,
        scales: { x: { time: false, range: (u, min, max) => [min - 0.5, max + 0.5] }, y: { range: (u, min, max) => min == null ? [0, 1] : [low - pad, high + pad] } },
        axes: [
          { ...common, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000], space: 92, values: (u, ticks) => ticks.map((tick) => this.points[tick] ? this.tick(this.points[tick]) : "") },
          { ...common, size: 66, label: this.unit, labelSize: 18, labelFont: "12px system-ui, sans-serif" },
        ],
        legend: { show: false }, cursor: { drag: { x: true, y: false } },
        series: [{}, { label: data.metric, stroke: token("--accent"), width: 1.4, spanGaps: true, points: { show: true, size: 7, fill: token("--card") } }],
        hooks: { drawClear: [(u) => this.under(u)], draw: [(u) => this.over(u)], setCursor: [(u) => this.tell(u)] },
      };
      this.plot = new uPlot(options, [x, at("value")], this.box);
      this.tip = make("div", "tip");
      this.tip.hidden = true;
      this.box.append(this.tip);
    }

    under(u) {
      const { ctx } = u, { left, top, width, height } = u.bbox;
      ctx.save();
      ctx.beginPath(); ctx.rect(left, top, width, height); ctx.clip();
      ctx.fillStyle = token("--band");
      this.points.forEach((one, i) => {
        if (one.low == null) return;
        const x0 = u.valToPos(i - 0.5, "x", true), x1 = u.valToPos(i + 0.5, "x", true);
        const y0 = u.valToPos(one.high / this.scale, "y", true), y1 = u.valToPos(one.low / this.scale, "y", true);
        ctx.fillRect(Math.round(x0), y0, Math.round(x1) - Math.round(x0), Math.max(2, y1 - y0));
      });
      ctx.restore();
    }

    // Marks stand between the run before and the run that they belong to; runs beyond their band get a full dot.
    over(u) {
      const { ctx } = u, { left, top, width, height } = u.bbox, px = devicePixelRatio;
      ctx.save();
      ctx.beginPath(); ctx.rect(left, top, width, height); ctx.clip();
      this.points.forEach((one, i) => {
        const kinds = Object.keys(KINDS).filter((kind) => one.marks.some((mark) => mark[0] === kind));
        kinds.forEach((kind, place) => {
          const x = Math.round(u.valToPos(i - 0.5, "x", true)) + place * 3 * px;
          ctx.strokeStyle = token(KINDS[kind]);
          ctx.lineWidth = 1.5 * px;
          ctx.setLineDash(kind === "baseline" ? [] : [5 * px, 4 * px]);
          ctx.beginPath(); ctx.moveTo(x, top); ctx.lineTo(x, top + height); ctx.stroke();
        });
        if (one.value == null || !(one.judged === "worse" || ["fail", "regression"].includes(one.outcome))) return;
        ctx.fillStyle = token("--fail");
        ctx.beginPath();
        ctx.arc(u.valToPos(i, "x", true), u.valToPos(one.value / this.scale, "y", true), 5 * px, 0, 2 * Math.PI);
        ctx.fill();
      });
      ctx.restore();
    }

    tell(u) {
      const { idx, left, top } = u.cursor, one = idx == null ? null : this.points[idx];
      if (!one || left < 0) { this.tip.hidden = true; return; }
      const lines = [make("b", "", one.when), make("div", "", one.value == null ? one.problem || "no value" : worded(one.value) + (one.change ? ` (${one.change})` : ""))];
      if (one.outcome || one.judged) lines.push(make("div", "", [one.outcome, one.judged].filter(Boolean).join(", ")));
      for (const [kind, text] of one.marks) lines.push(make("div", "", `${kind}: ${text}`));
      this.tip.replaceChildren(...lines);
      showTip(this.tip, this.box, u.over.offsetLeft + left, u.over.offsetTop + top);
    }
  }

  for (const root of document.querySelectorAll(".history")) new Series(root, data.series[Number(root.dataset.series)]);
})();

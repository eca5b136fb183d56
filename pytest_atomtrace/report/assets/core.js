"use strict";
// Shared by the scripts of the page: the data, times in words, and small tools for elements.
const atomtrace = (() => {
  const data = JSON.parse(document.getElementById("data").textContent);

  // The encoding of html_data.py, undone.
  const sums = (steps) => { let at = 0; return steps.map((one) => (at += one)); };
  const runs = (pairs) => {
    const found = [];
    for (let i = 0; i < pairs.length; i += 2) for (let n = pairs[i + 1]; n > 0; n--) found.push(pairs[i]);
    return found;
  };
  const bars = (lane) => {
    let end = 0;
    return lane.dur.map((dur, i) => {
      const start = end + lane.gap[i];
      end = start + dur;
      return { start, dur, name: lane.name[i], call: lane.call[i] };
    });
  };

  // As units.format_duration writes it: four significant digits.
  const duration = (ns) => {
    const size = Math.abs(ns);
    if (size < 1e3) return `${Math.round(ns)} ns`;
    const [value, unit] = size < 1e6 ? [ns / 1e3, "us"] : size < 1e9 ? [ns / 1e6, "ms"] : [ns / 1e9, "s"];
    const whole = Math.abs(value);
    return `${value.toFixed(whole < 10 ? 3 : whole < 100 ? 2 : 1)} ${unit}`;
  };

  const make = (tag, className, text) => {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const swatch = (colour) => {
    const element = make("span", "sw");
    element.style.setProperty("--c", colour);
    return element;
  };
  const token = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const kept = {
    get: (key) => { try { return localStorage.getItem(key); } catch { return null; } },
    set: (key, value) => { try { localStorage.setItem(key, value); } catch { /* a page from a file may keep nothing */ } },
  };

  // Parts that draw with colours or sizes of the page; they are asked again when either changes.
  const drawn = new Set();
  const redraw = () => drawn.forEach((draw) => draw());

  const showTip = (tip, box, x, y) => {
    tip.hidden = false;
    const width = tip.offsetWidth, height = tip.offsetHeight;
    tip.style.left = `${Math.max(0, Math.min(x + 14, box.clientWidth - width))}px`;
    tip.style.top = `${y + 18 + height > box.clientHeight && y > height + 8 ? y - height - 8 : y + 18}px`;
  };

  // Theme: the system's, or the reader's choice.
  const themes = ["auto", "dark", "light"], themeButton = document.getElementById("theme");
  let theme = themes.includes(kept.get("atomtrace-theme")) ? kept.get("atomtrace-theme") : "auto";
  const applyTheme = () => {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    themeButton.textContent = `Theme: ${theme}`;
    redraw();
  };
  themeButton.addEventListener("click", () => {
    theme = themes[(themes.indexOf(theme) + 1) % themes.length];
    kept.set("atomtrace-theme", theme);
    applyTheme();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  applyTheme();

  return { data, sums, runs, bars, duration, make, swatch, token, kept, drawn, redraw, showTip };
})();
document.documentElement.classList.add("js");

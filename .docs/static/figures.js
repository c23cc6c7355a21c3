// @ts-check
// Draws the figures of a tutorial page with the plotly.js beside it, in the page's colours.

/** @returns {boolean} whether the page is dark now */
function isDark() {
  const chosen = document.body.dataset.theme;
  if (chosen === "dark" || chosen === "light") return chosen === "dark";
  return matchMedia("(prefers-color-scheme: dark)").matches;
}

function draw() {
  const colour = isDark() ? "#e8ebef" : "#1f2328";
  const grid = isDark() ? "#3a3f47" : "#d8dce1";
  const axis = { gridcolor: grid, zerolinecolor: grid, linecolor: grid };
  for (const place of document.querySelectorAll(".figure-plotly")) {
    const { data, layout } = JSON.parse(place.nextElementSibling?.textContent ?? "{}");
    const plain = { paper_bgcolor: "transparent", plot_bgcolor: "transparent" };
    const themed = { ...layout, ...plain, font: { ...layout.font, color: colour } };
    for (const name of Object.keys(layout)) {
      if (/^[xy]axis\d*$/.test(name)) themed[name] = { ...axis, ...layout[name] };
    }
    delete themed.width;
    // @ts-ignore: plotly.js is a script of its own
    window.Plotly.react(place, data, themed, { responsive: true, displaylogo: false });
  }
}

document.addEventListener("DOMContentLoaded", () => {
  draw();
  new MutationObserver(draw).observe(document.body, { attributeFilter: ["data-theme"] });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
});

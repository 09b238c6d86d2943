  // The table of tests: as many rows as somebody wants to see

  const COLUMNS = [
    (test) => data.outcomes.indexOf(test.kind), (test) => test.name, (test) => test.worker,
    (test) => test.start, (test) => test.row[SETUP], (test) => test.row[CALL],
    (test) => test.row[TEARDOWN], (test) => test.stop - test.start,
  ];
  let sorting = { column: 7, down: true }, limit = 100;

  function listed() {
    const text = $("filter").value.toLowerCase(), outcome = $("outcome").value;
    const key = COLUMNS[sorting.column], sign = sorting.down ? -1 : 1;
    return tests
      .filter((test) => test.name.toLowerCase().includes(text) && (!outcome || test.kind === outcome))
      .sort((a, b) => (key(a) < key(b) ? -sign : key(a) > key(b) ? sign : a.index - b.index));
  }

  function row(test) {
    const name = make("button", { class: "id", type: "button" }, test.name);
    name.addEventListener("click", () => {
      select(test, { reveal: true });
      $("timeline").scrollIntoView();
      canvas.focus({ preventScroll: true });
    });
    const tag = make("span", { class: `tag k-${test.kind}` }, test.kind);
    const times = [test.start, test.row[SETUP], test.row[CALL], test.row[TEARDOWN], test.stop - test.start];
    return make("tr", {}, make("td", {}, tag), make("td", {}, name), make("td", {}, data.workers[test.worker]),
      ...times.map((time) => make("td", { class: "n" }, seconds(time))));
  }

  function list() {
    const found = listed();
    document.querySelector("#table tbody").replaceChildren(...found.slice(0, limit).map(row));
    $("matches").textContent = found.length === tests.length ? "" : `${found.length} of ${tests.length}`;
    $("more").hidden = found.length <= limit;
    $("some").hidden = true;
    document.querySelectorAll("#table th").forEach((head, column) => {
      if (column === sorting.column) head.setAttribute("aria-sort", sorting.down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
  }

  document.querySelectorAll("#table th").forEach((head, column) => {
    const button = make("button", { type: "button" }, head.textContent);
    button.addEventListener("click", () => {
      sorting = { column, down: sorting.column === column ? !sorting.down : column > 2 };
      list();
    });
    head.replaceChildren(button);
  });
  $("outcome").append(make("option", { value: "" }, "Any outcome"),
    ...data.outcomes.filter((kind) => tests.some((test) => test.kind === kind)).map((kind) => make("option", { value: kind }, kind)));
  for (const id of ["filter", "outcome"]) $(id).addEventListener("input", () => { limit = 100; list(); });
  $("more").addEventListener("click", () => { limit += 500; list(); });

  // Commands to copy, links into folded parts, light and dark

  for (const button of document.querySelectorAll("[data-copy]"))
    button.addEventListener("click", () => {
      const area = make("textarea", {}, button.previousElementSibling.textContent);
      button.after(area);
      area.select();
      button.textContent = document.execCommand("copy") ? "Copied" : "Copy failed";
      area.remove();
      button.focus();
    });
  for (const link of document.querySelectorAll("a[href^='#']"))
    link.addEventListener("click", () => open(link.getAttribute("href").slice(1)));

  const prefersDark = matchMedia("(prefers-color-scheme: dark)");
  function theme(dark) {
    if (dark) root.dataset.dark = "1";
    else delete root.dataset.dark;
    root.style.colorScheme = dark ? "dark" : "light";
    readColours();
    redraw();
  }
  $("theme").addEventListener("click", () => theme(!root.dataset.dark));
  prefersDark.addEventListener("change", () => theme(prefersDark.matches));

  theme(prefersDark.matches);
  list();
  new ResizeObserver(redraw).observe(plot);
  if (location.hash) open(location.hash.slice(1));
})();

"use strict";
// A click on a heading sorts the table by that column; another one turns it round.
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.parentElement;
    const body = head.closest("table").tBodies[0];
    const place = [...head.parentElement.children].indexOf(head);
    const falling = head.getAttribute("aria-sort") === "ascending";
    const number = head.classList.contains("number");
    const key = (row) => row.cells[place].dataset.key;
    const compare = (a, b) => {
      if (key(a) === "" || key(b) === "") return (key(a) === "") - (key(b) === "");  // empty ones last
      const order = number ? Number(key(a)) - Number(key(b)) : key(a).localeCompare(key(b), "en", { numeric: true });
      return falling ? -order : order;
    };
    body.append(...[...body.rows].sort(compare));
    for (const other of head.parentElement.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", falling ? "descending" : "ascending");
  });
}

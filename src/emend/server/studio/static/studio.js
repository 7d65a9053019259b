// Put the focus on what a new part of the page marks, so that the keyboard goes on from there; once
// it is settled, since htmx answers no key in it before.
document.addEventListener("htmx:afterSettle", (event) => {
  event.detail.target.querySelector("[data-focus]")?.focus();
});

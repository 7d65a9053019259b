// Put the focus on what a new part of the page marks, so that the keyboard goes on from there.
document.addEventListener("htmx:afterSwap", (event) => {
  event.detail.target.querySelector("[data-focus]")?.focus();
});

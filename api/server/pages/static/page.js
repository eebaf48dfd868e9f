/* Reads the live part of a page again every few seconds while it can be seen, and copies commands.
   A page that takes long is read less often: one reader keeps the database busy a twentieth of the time. */
(function () {
    "use strict";

    var EVERY = 5000, LONGEST = 60000, SHARE = 20;
    var paused = false, wait = EVERY, timer = null, began = 0;

    function live() { return document.getElementById("live"); }

    function say(text) {
        var place = document.getElementById("refreshed");
        if (place) { place.textContent = text; }
    }

    function busy() {
        var part = live();
        return part && part.contains(document.activeElement) || String(window.getSelection());
    }

    function later() {
        window.clearTimeout(timer);
        timer = window.setTimeout(refresh, wait);
    }

    function refresh() {
        if (!live() || !live().hasAttribute("hx-get") || paused || document.hidden) { return; }
        if (busy()) { later(); return; }
        began = Date.now();
        htmx.trigger(live(), "refresh");
    }

    function openOnes() {
        return Array.from(document.querySelectorAll("details[open][id]"), function (each) { return each.id; });
    }

    var open = [];
    document.addEventListener("htmx:beforeSwap", function () { open = openOnes(); });
    document.addEventListener("htmx:afterSettle", function (event) {
        open.forEach(function (id) {
            var found = document.getElementById(id);
            if (found) { found.open = true; }
        });
        if (event.target.id === "live") { say("Read at " + new Date().toLocaleTimeString()); }
    });
    document.addEventListener("htmx:afterRequest", function (event) {
        if (event.detail.elt.id !== "live") { return; }
        var took = Date.now() - began;
        wait = event.detail.successful ? Math.min(Math.max(EVERY, SHARE * took), LONGEST) : Math.min(2 * wait, LONGEST);
        if (!event.detail.successful) { say("Cannot be read again at the moment"); }
        later();
    });
    document.addEventListener("htmx:sseClose", refresh);
    document.addEventListener("visibilitychange", refresh);

    document.addEventListener("click", function (event) {
        var button = event.target.closest("button");
        if (!button) { return; }
        if (button.id === "pause") {
            paused = !paused;
            button.setAttribute("aria-pressed", String(paused));
            button.textContent = paused ? "Go on" : "Pause updates";
            refresh();
        }
        if (button.hasAttribute("data-copy")) { copy(button); }
    });

    function copy(button) {
        // navigator.clipboard is not there over plain HTTP
        var text = button.getAttribute("data-copy"), area = document.createElement("textarea");
        area.value = text;
        area.className = "visually-hidden";
        area.setAttribute("aria-hidden", "true");
        document.body.appendChild(area);
        area.select();
        var done = document.execCommand("copy");
        area.remove();
        button.textContent = done ? "Copied" : "Select it";
        button.focus();
    }

    window.nightshift = {isPaused: function () { return paused || document.hidden; }};
    if (live()) { later(); }
}());

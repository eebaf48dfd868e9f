/* Reads the page again every few seconds and replaces its live part, while it can be seen.
   A page that takes long is read less often: one reader keeps the database busy a twentieth of the time. */
(function () {
    "use strict";

    var EVERY = 5000, LONGEST = 60000, SHARE = 20;
    var live = document.getElementById("live");
    var status = document.getElementById("refreshed");
    var pause = document.getElementById("refresh-pause");
    var paused = false, wait = EVERY, timer = null;
    var address = new URL(window.location.href);

    address.username = address.password = address.hash = "";  // fetch refuses a login in an address

    function later() {
        window.clearTimeout(timer);
        timer = window.setTimeout(refresh, wait);
    }

    function busy() {
        return live.contains(document.activeElement) || String(window.getSelection());
    }

    function note() {
        status.textContent = "Read at " + new Date().toLocaleTimeString();
    }

    function show(text) {
        var page = new DOMParser().parseFromString(text, "text/html");
        var found = page.getElementById("live");
        if (found && !busy()) {
            live.replaceChildren.apply(live, Array.from(found.childNodes));
            note();
        }
    }

    function refresh() {
        if (paused || document.hidden) {
            return;
        }
        var began = Date.now();
        fetch(address.href, {credentials: "same-origin", cache: "no-store"}).then(function (answer) {
            if (!answer.ok) {
                throw new Error("answered " + answer.status);
            }
            return answer.text();
        }).then(function (text) {
            wait = Math.min(Math.max(EVERY, SHARE * (Date.now() - began)), LONGEST);
            show(text);
        }).catch(function (error) {
            wait = Math.min(2 * wait, LONGEST);
            status.textContent = "Cannot be read again: " + error.message;
        }).finally(later);
    }

    pause.addEventListener("click", function () {
        paused = !paused;
        pause.setAttribute("aria-pressed", String(paused));
        pause.textContent = paused ? "Go on" : "Pause";
        refresh();
    });
    document.addEventListener("visibilitychange", refresh);
    note();
    later();
}());

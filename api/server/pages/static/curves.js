/* The curves of a training job: loss beside each other metric, read again while the job runs. */
(function () {
    "use strict";

    var EVERY = 5000;
    var place = document.getElementById("curves");
    var charts = {};

    function colour(name) { return getComputedStyle(document.documentElement).getPropertyValue(name).trim(); }

    function options(name, box, points) {
        var axis = {stroke: colour("--soft"), grid: {stroke: colour("--line"), width: 1}, ticks: {stroke: colour("--line"), width: 1}};
        return {
            title: name, width: Math.max(240, box.clientWidth), height: 220, scales: {x: {time: false}},
            cursor: {drag: {x: true, y: false}},
            axes: [Object.assign({}, axis), Object.assign({size: 60}, axis)],
            series: [{label: "step"}, {label: name, stroke: colour("--bar"), width: 2, spanGaps: false, points: {show: points < 60, size: 4}}]
        };
    }

    function draw(series) {
        var names = Object.keys(series).filter(function (name) { return series[name][0].length > 1; });
        names.sort(function (a, b) { return (b === "loss") - (a === "loss") || a.localeCompare(b); });
        names.forEach(function (name) {
            if (charts[name]) { charts[name].setData(series[name], true); return; }
            var box = document.createElement("div");
            box.className = "chart";
            box.setAttribute("role", "img");
            box.setAttribute("aria-label", "Curve of " + name + "; its last value is in the table below");
            place.appendChild(box);
            charts[name] = new uPlot(options(name, box, series[name][0].length), series[name], box);
        });
        place.querySelector("p").hidden = names.length > 0;
    }

    function read() {
        if (window.nightshift.isPaused()) { window.setTimeout(read, EVERY); return; }
        fetch(place.getAttribute("data-source"), {credentials: "same-origin"}).then(function (answer) {
            if (!answer.ok) { throw new Error(String(answer.status)); }
            return answer.json();
        }).then(function (found) {
            draw(found.series);
            if (!found.ended) { window.setTimeout(read, EVERY); }
        }).catch(function () { window.setTimeout(read, 4 * EVERY); });
    }

    function again() {
        Object.keys(charts).forEach(function (name) {
            var data = charts[name].data, box = charts[name].root.parentNode;
            charts[name].destroy();
            charts[name] = new uPlot(options(name, box, data[0].length), data, box);
        });
    }

    window.addEventListener("resize", again);
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
    read();
}());

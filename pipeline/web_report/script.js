"use strict";
(() => {
  const tooltip = document.getElementById("tooltip");
  const clips = JSON.parse(document.getElementById("clips").textContent);

  // The theme: that of the system until the button is used.
  document.getElementById("theme").addEventListener("click", () => {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });

  // Charts: a cursor that hover, the arrow keys and the clip move.
  function prepare(figure) {
    const svg = figure.querySelector("svg[role=img]");
    const series = JSON.parse(svg.dataset.series);
    const xs = [...new Set(series.flatMap((one) => one.points.map((p) => p[0])))].sort((a, b) => a - b);
    const cursor = document.createElementNS("http://www.w3.org/2000/svg", "line");
    cursor.setAttribute("class", "cursor");
    cursor.setAttribute("y1", svg.dataset.top);
    cursor.setAttribute("y2", svg.dataset.bottom);
    cursor.setAttribute("visibility", "hidden");
    svg.append(cursor);
    let index = -1;
    function move(to, show, seek) {
      index = Math.max(0, Math.min(xs.length - 1, to));
      const found = series.map((one) => [one.label, one.points.find((p) => p[0] === xs[index])]).filter((pair) => pair[1]);
      const across = found[0][1][2];
      cursor.setAttribute("x1", across);
      cursor.setAttribute("x2", across);
      cursor.setAttribute("visibility", "visible");
      if (seek && figure.dataset.clip) seekTo(document.getElementById(figure.dataset.clip), xs[index]);
      if (!show) return;
      tooltip.textContent = [`${xs[index]}`, ...found.map(([label, p]) => `${label}: ${p[1]}`)].join("\n");
      const box = svg.getBoundingClientRect();
      const scale = box.width / svg.viewBox.baseVal.width;
      tooltip.style.visibility = "visible";
      const left = box.left + across * scale + 12;
      tooltip.style.left = `${Math.max(4, Math.min(left, innerWidth - tooltip.offsetWidth - 8))}px`;
      tooltip.style.top = `${Math.max(4, box.top + 8)}px`;
    }
    function hide() { tooltip.style.visibility = "hidden"; }
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      const at = (event.clientX - box.left) * svg.viewBox.baseVal.width / box.width;
      const places = xs.map((x) => series.map((one) => one.points.find((p) => p[0] === x)).find((p) => p)[2]);
      let nearest = 0;
      places.forEach((place, i) => { if (Math.abs(place - at) < Math.abs(places[nearest] - at)) nearest = i; });
      move(nearest, true, event.buttons > 0);
    });
    svg.addEventListener("pointerdown", () => { if (index >= 0) move(index, true, true); });
    svg.addEventListener("pointerleave", hide);
    svg.addEventListener("blur", hide);
    svg.addEventListener("keydown", (event) => {
      const to = { ArrowLeft: index - 1, ArrowRight: index + 1, Home: 0, End: xs.length - 1 }[event.key];
      if (event.key === "Escape") hide();
      if (to === undefined) return;
      event.preventDefault();
      move(to, true, true);
    });
    return { clip: figure.dataset.clip, follow: (x) => {
      let nearest = 0;
      xs.forEach((value, i) => { if (Math.abs(value - x) < Math.abs(xs[nearest] - x)) nearest = i; });
      move(nearest, false, false);
    } };
  }
  const charts = [...document.querySelectorAll(".chart")].map(prepare);

  // Clips: made from the base64 at the end of the page when they come into view.
  function seekTo(video, frame) {
    load(video);
    const go = () => { video.currentTime = (frame + 0.5) / video.dataset.fps; };
    if (video.readyState >= 1) go(); else video.addEventListener("loadedmetadata", go, { once: true });
  }
  function frameOf(video) {
    return Math.min(video.dataset.frames - 1, Math.floor(video.currentTime * video.dataset.fps + 0.01));
  }
  function load(video) {
    if (video.src || !clips[video.id]) return;
    const bytes = Uint8Array.from(atob(clips[video.id]), (c) => c.charCodeAt(0));
    video.src = URL.createObjectURL(new Blob([bytes], { type: "video/mp4" }));
    video.preload = "auto";
    const worst = Number(video.dataset.worst);
    let stopped = false, last = worst;
    video.addEventListener("loadedmetadata", () => { video.currentTime = (worst + 0.5) / video.dataset.fps; }, { once: true });
    video.addEventListener("timeupdate", () => {
      const frame = frameOf(video);
      if (!video.paused && !stopped && last < worst && frame >= worst && frame - last < video.dataset.fps) {
        stopped = true; // once, so that the clip can be played to its end
        video.pause();
        video.currentTime = (worst + 0.5) / video.dataset.fps;
      }
      last = frame;
      charts.filter((chart) => chart.clip === video.id).forEach((chart) => chart.follow(frame));
    });
    video.addEventListener("ended", () => { stopped = false; });
  }
  const watcher = new IntersectionObserver((entries) => {
    entries.filter((entry) => entry.isIntersecting).forEach((entry) => { load(entry.target); watcher.unobserve(entry.target); });
  }, { rootMargin: "300px" });
  document.querySelectorAll("video").forEach((video) => watcher.observe(video));
  document.querySelectorAll("button.worst").forEach((button) => {
    button.addEventListener("click", () => {
      const video = document.getElementById(button.dataset.clip);
      video.pause();
      seekTo(video, Number(video.dataset.worst));
    });
  });

  // Keys of the whole page.
  const steps = [...document.querySelectorAll(".step")];
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const here = steps.indexOf(document.activeElement.closest(".step"));
    if (event.key === "j" || event.key === "k") {
      const next = steps[Math.max(0, Math.min(steps.length - 1, here + (event.key === "j" ? 1 : -1)))];
      if (next) { next.focus({ preventScroll: true }); next.scrollIntoView(); }
    } else if ((event.key === "," || event.key === ".") && here >= 0) {
      const video = steps[here].querySelector("video");
      if (!video) return;
      video.pause();
      seekTo(video, Math.max(0, Math.min(video.dataset.frames - 1, frameOf(video) + (event.key === "." ? 1 : -1))));
    }
  });
})();

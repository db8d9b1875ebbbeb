"use strict";

// A service worker that stores the page's own files in the browser, so that the page opens without a network too.

importScripts("about.js");

const PREFIX = "partzoo page ";
const NAME = `${PREFIX}${ABOUT.digest}`;

addEventListener("install", (event) => {
  event.waitUntil(caches.open(NAME).then((cache) => cache.addAll(ABOUT.files)));
});

addEventListener("activate", (event) => {
  event.waitUntil(caches.keys().then((names) => Promise.all(
    names.filter((name) => name.startsWith(PREFIX) && name !== NAME).map((name) => caches.delete(name)),
  )));
});

addEventListener("fetch", (event) => {
  event.respondWith(caches.match(event.request).then((stored) => stored ?? fetch(event.request)));
});

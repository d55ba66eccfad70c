// What the clients that run in Node have in common.

import { appendFileSync, readFileSync, writeFileSync } from 'node:fs';

/** Asks a WHIP or WHEP endpoint. */
export function request(method, address, token, body) {
  const headers = { 'Content-Type': 'application/sdp' };
  if (token) headers.Authorization = `Bearer ${token}`;
  return fetch(address, { method, headers, body, redirect: 'error' });
}

/** Calls it at a steady pace, catching up where the timer was late. */
export function every(interval, duration, call) {
  const began = performance.now();
  let calls = 0;
  return new Promise((resolve) => {
    const timer = setInterval(() => {
      const passed = performance.now() - began;
      for (; calls * interval < Math.min(passed, duration); calls++) call();
      if (passed < duration) return;
      clearInterval(timer);
      resolve();
    }, interval / 2);
  });
}

/** The packets in a file, each after its length in two bytes; without a file, one of silence. */
export function readPackets(file) {
  if (!file) return [Buffer.from([0xf8, 0xff, 0xfe])];
  const packets = [];
  const data = readFileSync(file);
  for (let at = 0; at < data.length; at += 2 + data.readUInt16BE(at)) {
    packets.push(data.subarray(at + 2, at + 2 + data.readUInt16BE(at)));
  }
  return packets;
}

/** Gives what appends a packet to a file, if there is one. */
export function packetWriter(file) {
  if (!file) return () => {};
  writeFileSync(file, '');
  return (packet) => appendFileSync(file, Buffer.concat([Buffer.from([packet.length >> 8, packet.length & 0xff]), packet]));
}

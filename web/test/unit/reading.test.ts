// What comes from the service, read: streams cut anywhere, texts that mean harm, fragments, statuses. Node alone.

import assert from "node:assert/strict";
import { test } from "node:test";
import { EventLines, plain, readEvent } from "../../src/events.js";
import { Fault, faultOfAnswer, faultOfMicrophone } from "../../src/fault.js";
import { readFragment, restartedAnswer, writeFragment } from "../../src/fragment.js";
import { levelOf } from "../../src/microphone.js";
import { readDetails, readEndpoint } from "../../src/service.js";
import { languageOf, wordsIn } from "../../src/words.js";

test("a stream is the same wherever it is cut, and whichever line ends it has", () => {
  const stream = ': hello\r\ndata: {"a":1}\r\n\r\nevent: x\ndata: one\ndata:two\n\ndata: 三\r\rid: 7\n\n';
  for (let cut = 0; cut <= stream.length; cut += 1) {
    const lines = new EventLines();
    assert.deepEqual([...lines.push(stream.slice(0, cut)), ...lines.push(stream.slice(cut))], ['{"a":1}', "one\ntwo", "三"], `cut at ${cut}`);
  }
});

test("an event without an end doesn't fill the memory", () => {
  const lines = new EventLines();
  assert.throws(() => {
    for (let n = 0; n < 40; n += 1) lines.push("data: " + "x".repeat(1000) + "\n");
  }, Fault);
  assert.throws(() => new EventLines().push("x".repeat(20_000)), Fault);
});

test("events have their shapes or are none", () => {
  assert.deepEqual(readEvent('{"type":"state","state":"listening"}'), { type: "state", state: "listening" });
  assert.deepEqual(readEvent('{"type":"digits","digits":"4 7 1 9"}'), { type: "digits", digits: "4 7 1 9" });
  assert.deepEqual(readEvent('{"type":"result","result":"paid","text":"Paid.","reference":null}'), { type: "result", result: "paid", text: "Paid.", reference: null });
  for (const bad of ["", "[]", "null", "{", '{"type":"state","state":"dancing"}', '{"type":"result","result":"PAID"}', '{"type":"caption","who":"bank","text":"x"}', '{"type":"digits","digits":7}', '{"type":"new"}']) {
    assert.equal(readEvent(bad), null, bad);
  }
});

test("a text can't reorder what stands around it, nor fill the screen", () => {
  assert.equal(plain("City\u202e\n\u2066 Water\u0000", 100), "City Water");
  assert.equal(plain("x".repeat(500), 10), "x".repeat(10));
  assert.equal(plain({ toString: () => "no" }, 10), "");
});

const ANSWER = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=ice-lite\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\na=ice-ufrag:old1\r\na=ice-pwd:oldoldoldoldoldoldoldo\r\na=fingerprint:sha-256 AA\r\na=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\na=end-of-candidates\r\n";

test("a fragment says who we are and where, and is read again", () => {
  const sdp = ANSWER.replace("old1", "ours");
  const fragment = writeFragment(sdp, ["candidate:1 1 udp 1 192.0.2.7 9 typ host"], true);
  assert.equal(fragment, "a=ice-ufrag:ours\r\na=ice-pwd:oldoldoldoldoldoldoldo\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\na=candidate:1 1 udp 1 192.0.2.7 9 typ host\r\na=end-of-candidates\r\n");
  assert.deepEqual(readFragment(fragment), { ufrag: "ours", pwd: "oldoldoldoldoldoldoldo", candidates: ["candidate:1 1 udp 1 192.0.2.7 9 typ host"] });
  assert.equal(readFragment("a=ice-ufrag:ab\r\na=ice-pwd:short\r\n"), null);
  assert.equal(readFragment("<html>"), null);
  assert.ok(writeFragment(sdp, Array.from({ length: 500 }, () => "candidate:x"), false).split("\r\n").length < 80, "bounded");
});

test("after a restart the answer has the new credentials and candidates, and all else as it was", () => {
  const after = restartedAnswer(ANSWER, { ufrag: "new1", pwd: "newnewnewnewnewnewnewn", candidates: ["candidate:2 1 udp 1 192.0.2.2 9 typ host"] });
  assert.ok(!after.includes("old") && !after.includes("192.0.2.1"), after);
  assert.ok(after.includes("a=ice-ufrag:new1\r\n") && after.includes("192.0.2.2") && after.includes("a=fingerprint:sha-256 AA\r\n") && after.includes("a=ice-lite\r\n"));
});

test("statuses and problems are told apart; the problem's own word wins", () => {
  const of = (status: number, kind = ""): string => faultOfAnswer(status, kind && `urn:voicepay:problem:${kind}`);
  assert.deepEqual([401, 403, 404, 409, 410, 429, 503, 500, 400, 413].map((status) => of(status)), ["expired", "wrong-origin", "expired", "used", "expired", "busy", "busy", "service", "rejected", "rejected"]);
  assert.equal(of(401, "token-expired"), "expired");
  assert.equal(of(400, "wrong-origin"), "wrong-origin");
  assert.equal(of(403, "token-used"), "used");
  assert.equal(faultOfMicrophone(new DOMException("", "NotAllowedError")), "mic-refused");
  assert.equal(faultOfMicrophone(new DOMException("", "NotFoundError")), "mic-missing");
  assert.equal(faultOfMicrophone(new DOMException("", "NotReadableError")), "mic-busy");
  assert.equal(faultOfMicrophone("?"), "mic-busy");
});

test("the token goes to https only, or to this machine", () => {
  assert.equal(readEndpoint("", "https://shop.example/a/b?c").href, "https://shop.example/app/session");
  assert.equal(readEndpoint("https://pay.example/voice/", "https://shop.example/").href, "https://pay.example/voice/app/session");
  assert.equal(readEndpoint("http://127.0.0.1:8080", "https://shop.example/").href, "http://127.0.0.1:8080/app/session");
  for (const bad of ["http://pay.example", "ftp://pay.example", "javascript:alert(1)", "https://", "http://127.0.0.1.evil.example"]) {
    assert.throws(() => readEndpoint(bad, "https://shop.example/"), Fault, bad);
  }
});

test("what is shown is the service's; ICE servers are taken only when they are some", () => {
  const details = readDetails({ payee: "City Water", amount: { minor: 1999, currency: "USD" }, language: "en", ice_servers: [{ urls: "stun:a" }, { urls: ["turn:b", "http://c"], username: "u", credential: "p" }, 7, { urls: "https://d" }] });
  assert.deepEqual(details, { payee: "City Water", amount: "$19.99", language: "en", iceServers: [{ urls: ["stun:a"] }, { urls: ["turn:b"], username: "u", credential: "p" }] });
  assert.equal(readDetails({ amount: { minor: 1999, currency: "JPY" }, language: "en" }).amount, "¥1,999");
  assert.equal(readDetails({ amount_text: "nineteen dollars", amount: { minor: 1, currency: "USD" } }).amount, "nineteen dollars");
  assert.equal(readDetails({ amount: { minor: 0.5, currency: "USD" } }).amount, "");
});

test("the level spans what a voice spans", () => {
  assert.equal(levelOf(new Float32Array(64)), 0);
  assert.equal(levelOf(new Float32Array(64).fill(1)), 1);
  const half = levelOf(new Float32Array(64).fill(0.05));
  assert.ok(half > 0.4 && half < 0.6, String(half));
});

test("languages, and no text missing in either", () => {
  assert.equal(languageOf(null, "zh-Hant-TW"), "zh");
  assert.equal(languageOf("fr", "zh"), "zh");
  assert.equal(languageOf(undefined, ""), "en");
  const paths = (value: unknown, at = ""): string[] => (typeof value === "object" && value !== null ? Object.entries(value).flatMap(([key, inner]) => paths(inner, `${at}.${key}`)) : [`${at} ${value === "" ? "EMPTY" : ""}`]);
  assert.deepEqual(paths(wordsIn("zh")), paths(wordsIn("en")));
  assert.ok(!paths(wordsIn("en")).some((path) => path.includes("EMPTY")));
});

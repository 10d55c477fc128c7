// A page behind a firewall that lets nothing through but a TURN server: coturn, which scripts/browser-test.sh starts and the service's configuration names.

import assert from "node:assert/strict";
import { test } from "node:test";
import { launch, Visitor } from "../support/app.js";
import { converse, MICROPHONE } from "../support/person.js";
import { RELAYED_PEERS } from "../support/peers.js";
import { order, shopUrl, WATCH } from "../support/shop.js";

const skip = process.env["VOICEPAY_TURN"] ? false : "VOICEPAY_TURN is not set: there is no TURN server";

test("through a TURN server alone, a customer confirms and pays", { skip }, async () => {
  const browser = await launch(null);
  try {
    const user = await Visitor.at(browser, shopUrl(), { init: MICROPHONE + WATCH + RELAYED_PEERS });
    await order(user.page, "water");
    await user.start();
    await user.until("listening", 40_000);
    const pair = await user.page.evaluate(async () => {
      const stats = [...((await window.peers[0]?.getStats())?.values() ?? [])];
      const used = stats.find((s) => s.type === "candidate-pair" && s.state === "succeeded" && s.nominated);
      return stats.find((s) => s.id === used?.localCandidateId)?.candidateType as string | undefined;
    });
    assert.equal(pair, "relay");
    await converse(user.page, { digits: "alice", answer: { voice: "alice", words: "yes" } });
    const told = await user.result(5_000);
    assert.equal(told.result, "paid", JSON.stringify(told));
  } finally {
    await browser.close();
  }
});

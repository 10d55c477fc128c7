# Two commands matter: `make demo` shows a caller paying by voice, `make test` checks everything. Both set up what they
# need first; a second run starts in seconds. One build profile (`dev`, optimised) serves all targets.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
CARGO := PATH="$$HOME/.cargo/bin:$$PATH" cargo
VOICEPAY := $(CARGO) run --quiet --locked --

.PHONY: help setup build models test test-peers crash-test test-webhooks test-web test-browser simulate bench-calls bench-payments bench-policy bench-api test-api demo bench eval eval-opus train-digits prompts fixtures fuzz lint clean

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 18

setup: ## install what is missing on this machine (Debian; root or sudo)
	@scripts/setup.sh

build: setup ## build library, binary and tests, once
	@. scripts/lib.sh; step "Building (about 15 minutes the first time, on two cores)"; \
	  $(CARGO) test --locked --no-run; done_step

models: build ## fetch and verify the speech models (outside the repo)
	@. scripts/lib.sh; step "Speech models"; $(VOICEPAY) models fetch; done_step

test: models ## set up, build, run every test; how <voicepay-confirm> looks and whether everybody can use it (axe, in Chromium)
	@web=0; scripts/web-test.sh looks || web=$$?; scripts/test.sh && exit $$web

test-peers: models ## calls by Asterisk 16 and 22, baresip, linphonec, SIPp, Kamailio (CASES="asterisk22-*"); writes docs/PEERS.md
	@scripts/peers/run.sh $(CASES)

crash-test: setup ## 1,100 kills -9 on each database, compared with the bank's books (KILLS=1100, SEED=1)
	@scripts/crash-test.sh $(or $(KILLS),1100) $(or $(SEED),1)

test-webhooks: setup ## webhooks to a receiver that fails three times in ten, in order and none lost, on each database (EVENTS=10000)
	@VOICEPAY_TEST_WEBHOOKS=$(or $(EVENTS),10000) VOICEPAY_TEST_POSTGRES_REQUIRED=1 \
	  $(CARGO) test --locked --test it_money webhooks_arrive -- --nocapture --test-threads 1

simulate: setup ## several nodes, clocks that jump, a bank with faults, by seeds (SEEDS=0..10000)
	@scripts/simulate.sh $(or $(SEEDS),0..10000)

demo: setup ## four real calls on this machine: enrolment, payment, two refusals
	@. scripts/lib.sh; step "Building (about 15 minutes the first time, on two cores)"; \
	  $(CARGO) build --locked --bin voicepay; done_step
	@. scripts/lib.sh; step "Speech models"; $(VOICEPAY) models fetch; done_step
	@$(VOICEPAY) demo $(ARGS)

bench: models ## the figures of the README, on this machine
	@scripts/bench.sh $(ARGS)

test-api: setup ## schemathesis against the API, whole: 100 examples an operation (ARGS=200)
	@scripts/test-api.sh $(ARGS)

test-web: ## <voicepay-confirm> in Chromium with a made-up service: calls, faults, accessibility; pictures in web/shots (ARGS="call looks")
	@scripts/web-test.sh $(ARGS)

test-browser: setup ## the demo's shop in a real browser: people with recorded voices confirm payments, with all models (ARGS="network pays"); pictures in web/shots
	@scripts/browser-test.sh $(ARGS)

bench-api: setup ## the API's p99 beside its database's own in one run; writes benches/API.md
	@scripts/bench-api.sh $(ARGS)

bench-calls: models ## calls on one core, set-ups a second, memory a call, beside Asterisk 22; writes benches/CALLS.md
	@scripts/peers/bench.sh $(ARGS)

bench-payments: setup ## payments a second beside bare commits, cost as the database grows; writes benches/PAYMENTS.md (ARGS="--retries 1000000")
	@scripts/bench-payments.sh $(ARGS)

bench-policy: setup ## how long 1,000 rules take to answer; writes benches/POLICY.md
	@$(CARGO) bench --quiet --locked --profile dev --bench policy

eval: models ## recognition, decisions and peers on ../shared/speechdata (DATA=folder SPLIT=name); writes models/REPORT.md
	@scripts/eval.sh $(ARGS)

eval-opus: models ## voices over Opus as browsers send it, at 6 to 64 kbit/s and with losses (DATA=folder SPLIT=name LIMIT=utterances)
	@. scripts/lib.sh; debian_packages opus-tools libopus0
	@python3 scripts/eval-opus.py --voicepay "$${CARGO_TARGET_DIR:-target}/debug/voicepay" --data $(or $(DATA),../shared/speechdata) --split $(or $(SPLIT),dev) --limit $(or $(LIMIT),0)

train-digits: ## train models/digits/head.safetensors again (FSDD=, AN4=: folders of the two sets, scripts/digit-head/README.md; hours)
	@scripts/digit-head/run.sh "$(FSDD)" "$(AN4)"

prompts: ## record the texts of prompts/en.toml that changed
	@scripts/make-prompts.sh

fixtures: ## speak audio-fixtures/ again
	@scripts/make-fixtures.sh

fuzz: ## fuzz what reads from the network (MINUTES=1 a target, TARGET="sdp rtp": all)
	@scripts/fuzz.sh "$(or $(MINUTES),1)" $(TARGET)

lint: setup ## formatting and clippy, no warnings allowed
	@$(CARGO) fmt --check
	@$(CARGO) clippy --locked --all-targets -- -D warnings

clean: ## remove what was built (models and databases stay)
	@$(CARGO) clean

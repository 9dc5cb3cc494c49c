# SeatGrid: build, local cluster, tests. `make help` prints the targets.
#
# Each variant has a folder of its own, build/<variant>/, so that they live side by side:
#   release  -O2 -g, jemalloc          asan  address + undefined behaviour
#   tsan     threads                   fuzz  clang, coverage for libFuzzer, address + undefined
# Public targets install what is missing, then call make again with VARIANT set; in that second
# make pkg-config finds what the first one installed. Builds take build/.lock, so that two makes
# in one checkout don't write the same object at once.
#
# SPDX-License-Identifier: MIT

SHELL := /bin/bash
.DEFAULT_GOAL := build
.DELETE_ON_ERROR:
.SECONDARY:
MAKEFLAGS += --no-print-directory --no-builtin-rules

# ---- what a user may set ------------------------------------------------------------------------

VARIANT ?= release
JOBS ?= $(shell nproc)
PREFIX ?= /usr/local
DESTDIR ?=
# The local cluster of run, up, down and status.
VAR ?= var
HTTP_PORT ?= 8080
ADMIN_PORT ?= 8081
PORT_BASE ?= 8100
REPLICAS ?= 1
# sync: a write waits for a replica; with REPLICAS=2 it survives the loss of one.
DURABILITY ?=
# 1: every shard under Patroni, with etcd.
HA ?=
# 1: with RabbitMQ and a worker: bookings that are accepted now and made later.
QUEUE ?=
# Files of stories that run at the same time; most of them wait.
STORY_JOBS ?= 2
# Names of tests, a part of them is enough: make check T=shardmap
T ?=
FUZZ_SECONDS ?= 20
SOAK_SECONDS ?= 600
SOAK_KILLS ?= 200
# Drills at random; no new one after so many seconds.
SOAK_FAULTS ?= 200
SOAK_DRILL_SECONDS ?= 7200
# Lives of the model, each with a seed of its own.
SOAK_RUNS ?= 10

# ---- flags --------------------------------------------------------------------------------------

B := build/$(VARIANT)
GEN := build/gen
PACKAGES := libpq libconfig libevent_core libevent_extra libevent_pthreads jansson hiredis \
            libprotobuf-c librabbitmq zlib libcrypto

CC_release := gcc
CC_asan := gcc
CC_tsan := gcc
CC_fuzz := clang
CFLAGS_release := -O2
CFLAGS_asan := -O1 -fno-omit-frame-pointer -fsanitize=address,undefined \
               -fno-sanitize-recover=undefined -DSG_NO_JEMALLOC
CFLAGS_tsan := -O1 -fsanitize=thread -DCK_USE_CC_BUILTINS=1 -DSG_NO_JEMALLOC -Wno-tsan
CFLAGS_fuzz := -O1 -fno-omit-frame-pointer -fsanitize=fuzzer-no-link,address,undefined \
               -fno-sanitize-recover=undefined -DSG_NO_JEMALLOC
LDFLAGS_asan := -fsanitize=address,undefined
LDFLAGS_tsan := -fsanitize=thread
LDFLAGS_fuzz := -fsanitize=address,undefined
LIBS_release := -ljemalloc

ifeq ($(CC_$(VARIANT)),)
$(error VARIANT=$(VARIANT): choose one of release asan tsan fuzz)
endif

CC := $(CC_$(VARIANT))
# Evaluated at first use: only targets that compile ask pkg-config.
PKG_CFLAGS = $(eval PKG_CFLAGS := $$(shell pkg-config --cflags $$(PACKAGES)))$(PKG_CFLAGS)
PKG_LIBS = $(eval PKG_LIBS := $$(shell pkg-config --libs $$(PACKAGES)))$(PKG_LIBS)
WARNINGS := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes
COMMON_CFLAGS = -std=gnu11 -D_GNU_SOURCE -g $(WARNINGS) -pthread -I. -isystem $(GEN) $(PKG_CFLAGS)
ALL_CFLAGS = $(COMMON_CFLAGS) $(CFLAGS_$(VARIANT)) $(CFLAGS)
ALL_LDFLAGS = -pthread $(LDFLAGS_$(VARIANT)) $(LDFLAGS)
ALL_LIBS = $(PKG_LIBS) -lck $(LIBS_$(VARIANT)) -lm

# ---- sources ------------------------------------------------------------------------------------

FOLDERS := base shardmap router queue replication payment api cli dev drill
SOURCES := $(sort $(foreach f,$(FOLDERS),$(wildcard $(f)/*.c)))
MIGRATIONS := $(sort $(wildcard migrations/*.sql))
PROTOS := $(wildcard proto/*.proto)
GEN_PROTO_C := $(PROTOS:%.proto=$(GEN)/%.pb-c.c)
GEN_PROTO_H := $(PROTOS:%.proto=$(GEN)/%.pb-c.h)
GEN_C := $(GEN_PROTO_C) $(GEN)/migrations.c

obj = $(patsubst $(GEN)/%.c,$(B)/obj/gen/%.o,$(filter $(GEN)/%,$(1))) \
      $(patsubst %.c,$(B)/obj/%.o,$(filter-out $(GEN)/%,$(1)))
OBJECTS := $(call obj,$(SOURCES) $(GEN_C))
LIB_OBJECTS := $(filter-out $(B)/obj/cli/main.o,$(OBJECTS))
# What stands in front of the router, and the text of tokens, for tests that put a scripted router
# behind it.
FRONT_OBJECTS := $(filter-out $(B)/obj/cli/% $(B)/obj/dev/% $(B)/obj/router/%,$(LIB_OBJECTS)) \
                 $(B)/obj/router/token.o
FAKE_ROUTER := tests/unit/api/fake_router.c

UNIT_SOURCES := $(sort $(shell find tests/unit -name '*_test.c' 2>/dev/null))
FAKE_SOURCES := $(filter %_fake_router_test.c,$(UNIT_SOURCES))
REAL_SOURCES := $(filter-out $(FAKE_SOURCES),$(UNIT_SOURCES))
UNITS_FAKE := $(FAKE_SOURCES:tests/unit/%.c=$(B)/unit/%)
UNITS_REAL := $(REAL_SOURCES:tests/unit/%.c=$(B)/unit/%)
# The simulation puts servers, network and clock of its own in place of these.
SIM_SOURCES := $(sort $(wildcard tests/sim/*.c))
SIM_OBJECTS := $(filter-out $(B)/obj/base/pgask.o $(B)/obj/router/pgconn.o,$(LIB_OBJECTS)) \
               $(SIM_SOURCES:%.c=$(B)/obj/%.o)
SIM := $(B)/unit/sim/failover_sim_test
UNITS := $(UNITS_REAL) $(UNITS_FAKE) $(SIM)
FUZZERS := $(patsubst tests/fuzz/fuzz_%.c,build/fuzz/fuzz_%,$(sort $(wildcard tests/fuzz/fuzz_*.c)))
BENCHES := $(patsubst tests/bench/%.c,$(B)/bench/%,$(sort $(wildcard tests/bench/*.c)))

C_FILES = $(sort $(foreach f,$(FOLDERS),$(wildcard $(f)/*.[ch])) \
          $(shell find tests -name '*.[ch]' 2>/dev/null))

# A make inside a make: one at a time in this checkout, on all cores unless -j says otherwise.
LOCKED_MAKE = mkdir -p build && flock build/.lock \
              $(MAKE) $(if $(findstring jobserver,$(MAKEFLAGS)),,-j$(JOBS))
DEPS = ./tools/install-deps

# ---- public targets -----------------------------------------------------------------------------

.PHONY: help build run up down status test check integration asan tsan tidy format bench soak \
        fuzz install clean destroy

help: ## print this list
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / { printf "  %-13s %s\n", $$1, $$2 }' Makefile
	@printf '  %s\n' '' \
	    'Build    VARIANT=release|asan|tsan|fuzz JOBS=n PREFIX=/usr/local DESTDIR=' \
	    'Cluster  VAR=var HTTP_PORT=8080 ADMIN_PORT=8081 PORT_BASE=8100 REPLICAS=1' \
	    '         DURABILITY=sync|async HA=1 QUEUE=1' \
	    'Tests    T=part-of-a-name FUZZ_SECONDS=20 SOAK_SECONDS=600 SOAK_KILLS=200' \
	    '         SOAK_FAULTS=200 SOAK_DRILL_SECONDS=7200 SOAK_RUNS=10'

build: ## compile: build/<variant>/seatgrid, and build/seatgrid -> release
	@+$(LOCKED_MAKE) VARIANT=$(VARIANT) $(B)/seatgrid $(if $(filter release,$(VARIANT)),build/seatgrid)

DEV_FLAGS = --var '$(VAR)' --http-port '$(HTTP_PORT)' --admin-port '$(ADMIN_PORT)' \
            --port-base '$(PORT_BASE)' --replicas '$(REPLICAS)' \
            $(if $(DURABILITY),--durability '$(DURABILITY)') $(if $(filter-out 0,$(HA)),--ha) \
            $(if $(filter-out 0,$(QUEUE)),--queue)
RUN_DEPS = $(if $(filter-out 0,$(HA)),ha,run) $(if $(filter-out 0,$(QUEUE)),queue)

run: ## start a local cluster and book a first seat; Ctrl-C stops it
	@for set in $(RUN_DEPS); do $(DEPS) $$set || exit; done
	@+$(MAKE) build
	@exec $(B)/seatgrid dev run $(DEV_FLAGS)

up: ## the same in the background; returns when the API is ready
	@for set in $(RUN_DEPS); do $(DEPS) $$set || exit; done
	@+$(MAKE) build
	@$(B)/seatgrid dev up $(DEV_FLAGS)

# The program that is there has to do: sources under work must not keep a cluster from stopping.
down: ## stop what `make up` started; the data stays
	@+[ -x $(B)/seatgrid ] || $(MAKE) build
	@$(B)/seatgrid dev down --var '$(VAR)'

status: ## what of the local cluster runs
	@+[ -x $(B)/seatgrid ] || $(MAKE) build
	@$(B)/seatgrid dev status --var '$(VAR)'

check: ## unit tests, no servers needed
	@$(DEPS) test
	@+$(LOCKED_MAKE) VARIANT=$(VARIANT) units
	@./tools/run-units '$(T)' $(UNITS)

integration: ## stories on real servers, on free ports
	@$(DEPS) test
	@+$(MAKE) build VARIANT=$(VARIANT)
	@/usr/bin/python3 tests/integration/run.py -j $(STORY_JOBS) --variant $(VARIANT) $(if $(T),-k '$(T)')

test: ## check + integration
	@./tools/totals "$(MAKE) check" "$(MAKE) integration"

asan: ## unit tests and short stories under the address sanitizer
	@./tools/totals "$(MAKE) check VARIANT=asan" "$(MAKE) short-stories VARIANT=asan"

tsan: ## the same under the thread sanitizer
	@./tools/totals "$(MAKE) check VARIANT=tsan" "$(MAKE) short-stories VARIANT=tsan"

.PHONY: short-stories
short-stories:
	@$(DEPS) test
	@+$(MAKE) build VARIANT=$(VARIANT)
	@/usr/bin/python3 tests/integration/run.py -j $(STORY_JOBS) --variant $(VARIANT) --short $(if $(T),-k '$(T)')

tidy: ## clang-tidy, layering and include rules, headers, formatting
	@$(DEPS) tidy
	@+code=0; ./tools/tidy || code=1; \
	 $(LOCKED_MAKE) --keep-going VARIANT=release tidy-files || code=1; exit $$code

format: ## clang-format every C file
	@$(DEPS) tidy
	@clang-format -i $(C_FILES)

fuzz: ## each fuzzer for FUZZ_SECONDS, from its corpus
	@$(DEPS) fuzz
	@+$(LOCKED_MAKE) VARIANT=fuzz fuzzers
	@./tools/run-fuzzers '$(FUZZ_SECONDS)' '$(T)' $(FUZZERS)

bench: ## the table of figures (wrk; bounded in time)
	@$(DEPS) bench
	@+$(LOCKED_MAKE) VARIANT=release build/release/seatgrid build/seatgrid benches
	@./tests/bench/run

soak: ## SOAK_SECONDS of kills under load; SOAK_KILLS, SOAK_FAULTS more
	@$(DEPS) bench
	@+$(LOCKED_MAKE) VARIANT=release build/release/seatgrid build/seatgrid benches
	@/usr/bin/python3 tests/bench/soak.py --kills --seconds '$(SOAK_SECONDS)'
	@/usr/bin/python3 tests/bench/soak_cdc.py --kills '$(SOAK_KILLS)'
	@build/release/seatgrid drill random --faults '$(SOAK_FAULTS)' --seconds '$(SOAK_DRILL_SECONDS)'
	@/usr/bin/python3 tests/model/run.py --runs '$(SOAK_RUNS)'

install: build ## to PREFIX under DESTDIR: the binary, example configuration
	install -d '$(DESTDIR)$(PREFIX)/bin' '$(DESTDIR)$(PREFIX)/share/seatgrid'
	install -m 755 build/release/seatgrid '$(DESTDIR)$(PREFIX)/bin/seatgrid'
	install -m 644 $(wildcard configs/*.cfg) deploy/seatgrid.service '$(DESTDIR)$(PREFIX)/share/seatgrid/'
	install -d '$(DESTDIR)$(PREFIX)/share/seatgrid/patroni'
	install -m 644 deploy/patroni/patroni.yml '$(DESTDIR)$(PREFIX)/share/seatgrid/patroni/'
	install -m 755 deploy/patroni/drop-left-slots deploy/patroni/make-seatgrid-database \
	    '$(DESTDIR)$(PREFIX)/share/seatgrid/patroni/'

destroy: ## stop the local cluster and remove its data
	@+[ -x $(B)/seatgrid ] || $(MAKE) build
	@$(B)/seatgrid dev destroy --var '$(VAR)'

clean: ## destroy, and remove build/
	@+[ ! -d '$(VAR)/run' ] || $(MAKE) destroy
	rm -rf build

# ---- inner targets: run with VARIANT set, under the lock ------------------------------------------

.PHONY: units fuzzers benches tidy-files
units: $(UNITS)
fuzzers: $(FUZZERS)
benches: $(BENCHES)

$(B)/seatgrid: $(OBJECTS)
	@echo "  link  $@"
	@$(CC) $(ALL_LDFLAGS) -o $@ $^ $(ALL_LIBS)

build/seatgrid: build/release/seatgrid
	@ln -sfn release/seatgrid $@

# The flags an object was built with; another CFLAGS or another set of headers rebuilds it.
$(B)/obj/%.o: %.c Makefile | $(GEN_PROTO_H)
	@mkdir -p $(@D)
	@echo "  cc    $(VARIANT)  $<"
	@$(CC) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

# .incbin leaves no trace in the dependency files.
$(B)/obj/api/embedded.o: api/openapi.json api/docs.html
$(B)/obj/replication/scripts.o: $(wildcard replication/scripts/*.lua)

$(B)/obj/gen/proto/%.o: $(GEN)/proto/%.c Makefile
	@mkdir -p $(@D)
	@$(CC) $(ALL_CFLAGS) -w -MMD -MP -c -o $@ $<

$(B)/obj/gen/migrations.o: $(GEN)/migrations.c $(MIGRATIONS) Makefile
	@mkdir -p $(@D)
	@$(CC) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

# Holds these files' bytes (.incbin).
$(B)/obj/api/embedded.o: $(wildcard api/*.json api/*.html proto/*.proto)

$(GEN)/%.pb-c.c $(GEN)/%.pb-c.h &: %.proto
	@mkdir -p $(GEN)
	@protoc-c --c_out=$(GEN) $< 2> >(grep -v 'is deprecated' >&2)

# The list of files is a prerequisite by its text, so that a removed migration counts too.
$(GEN)/migrations.list: FORCE
	@mkdir -p $(GEN)
	@echo '$(MIGRATIONS)' | cmp -s - $@ || echo '$(MIGRATIONS)' >$@

$(GEN)/migrations.c: tools/embed-migrations $(GEN)/migrations.list
	@./tools/embed-migrations $(MIGRATIONS) >$@

.PHONY: FORCE
FORCE:

$(SIM): $(SIM_OBJECTS)
	@mkdir -p $(@D)
	@echo "  link  $@"
	@$(CC) $(ALL_LDFLAGS) -o $@ $^ $(ALL_LIBS) -lcmocka

$(UNITS_REAL): $(B)/unit/%: $(B)/obj/tests/unit/%.o $(LIB_OBJECTS)
	@mkdir -p $(@D)
	@echo "  link  $@"
	@$(CC) $(ALL_LDFLAGS) -o $@ $^ $(ALL_LIBS) -lcmocka

# An archive, so that only what a test reaches must do without the router.
$(B)/libfront.a: $(FRONT_OBJECTS)
	@rm -f $@
	@ar rcs $@ $^

$(UNITS_FAKE): $(B)/unit/%: $(B)/obj/tests/unit/%.o $(FAKE_ROUTER:%.c=$(B)/obj/%.o) $(B)/libfront.a
	@mkdir -p $(@D)
	@echo "  link  $@"
	@$(CC) $(ALL_LDFLAGS) -o $@ $^ $(ALL_LIBS) -lcmocka

build/fuzz/fuzz_%: $(B)/obj/tests/fuzz/fuzz_%.o $(LIB_OBJECTS)
	@echo "  link  $@"
	@$(CC) -fsanitize=fuzzer $(ALL_LDFLAGS) -o $@ $^ $(ALL_LIBS)

$(B)/bench/%: $(B)/obj/tests/bench/%.o $(LIB_OBJECTS)
	@mkdir -p $(@D)
	@echo "  link  $@"
	@$(CC) $(ALL_LDFLAGS) -o $@ $^ $(ALL_LIBS)

# A file is looked at again when its object is newer: its own text or a header changed.
TIDY_STAMPS := $(SOURCES:%.c=build/tidy/%.ok)
tidy-files: $(TIDY_STAMPS)
build/tidy/%.ok: %.c build/release/obj/%.o .clang-tidy
	@mkdir -p $(@D)
	@echo "  tidy  $<"
	@clang-tidy --quiet $< -- $(COMMON_CFLAGS) 2>$@.log || { cat $@.log >&2; exit 1; }
	@touch $@

-include $(patsubst %.o,%.d,$(OBJECTS) $(UNIT_SOURCES:%.c=$(B)/obj/%.o) $(SIM_SOURCES:%.c=$(B)/obj/%.o))
-include $(wildcard $(B)/obj/tests/fuzz/*.d $(B)/obj/tests/bench/*.d $(B)/obj/tests/unit/api/*.d)

# hone: `make` builds ./hone; `make test` proves it; `make help` lists the rest.
# Options: DEBUG=1 (NaN fills, red zones, -O1), SAN=address,undefined | thread, WERROR=1, CC=clang, CUDA= (off), V=1.
# Objects live in build/HASH-OF-FLAGS, so that changing an option never mixes objects.
.DEFAULT_GOAL := hone
# All cores build, unless -j says otherwise; several goals go one after another (make clean hone).
ifeq ($(MAKELEVEL)$(word 2,$(MAKECMDGOALS))$(filter -j% --jobserver%,$(MAKEFLAGS) $(shell echo "$$MAKEFLAGS")),0)
MAKEFLAGS += -j$(shell nproc)
endif
CC      := $(if $(filter default,$(origin CC)),gcc,$(CC))
FOLDERS := base ops ops/device ops/gemm ops/attention autograd data/tokenizers data/templates data/datasets checkpoints \
           recipes/models recipes/models/adapters recipes/models/gguf recipes/models/mixers recipes/models/families \
           train train/recipe train/log train/engine train/loop train/check train/serve train/commands
LIBS    := libzstd liblz4 snappy libpcre2-8 libutf8proc jansson yaml-0.1 libcrypto zlib

OPT   := $(if $(DEBUG),-O1 -DHONE_DEBUG,$(if $(SAN),-O1,-O3))
WARN  := -Wall -Wextra -Wshadow -Wconversion -Wno-sign-conversion -Wstrict-prototypes -Wvla $(if $(WERROR),-Werror)
# clang writes DWARF 5 in forms that Debian 12's valgrind does not read.
DEBUG_INFO := $(if $(findstring clang,$(CC)),-gdwarf-4,-g)
# Sanitized, the plain kernels make gcc spend most of its time on noting where each variable lies at each instruction, for
# debuggers alone; without that (-fno-var-tracking) the code, its checks and the lines of a report are the same.
FLAGS := -std=c17 -D_GNU_SOURCE $(DEBUG_INFO) -fno-math-errno -ffp-contract=off -fno-omit-frame-pointer $(OPT) $(WARN) \
         $(if $(SAN),-fsanitize=$(SAN) -fno-sanitize-recover=all -fno-var-tracking) -I. $(shell pkg-config --cflags $(LIBS))
CUDA  := $(shell command -v nvcc 2>/dev/null)
LINK  := $(if $(SAN),-fsanitize=$(SAN)) $(shell pkg-config --libs $(LIBS)) -lpthread -lm
BUILD := build/$(shell printf '%s' '$(CC) $(FLAGS) $(CUDA)' | cksum | cut -d' ' -f1)
HDF5  := $(shell pkg-config --cflags --libs hdf5) # of tests only: they ask the library what it reads in our files
Q     := $(if $(V),,@)

# Every *_cpu.c is compiled once per instruction set (base/v16.h); the program picks one at start (base/isa.c).
ISAS        := plain avx2 avx512 avx512bf16
AVX512      := -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx2 -mfma -mprefer-vector-width=512
FLAGS_plain :=
FLAGS_avx2  := -mavx2 -mfma
FLAGS_avx512 := $(AVX512)
FLAGS_avx512bf16 := $(AVX512) -mavx512bf16 -mavx512vnni

KERNELS := $(wildcard $(FOLDERS:%=%/*_cpu.c))
SOURCES := $(filter-out $(KERNELS),$(wildcard $(FOLDERS:%=%/*.c)))
OBJECTS := $(foreach i,$(ISAS),$(KERNELS:%.c=$(BUILD)/%.$(i).o)) $(SOURCES:%.c=$(BUILD)/%.o) # the slow ones first
LIBRARY := $(filter-out $(BUILD)/train/commands/main.o,$(OBJECTS))
# A test's program is $(BUILD)/tests/NAME, whichever folder NAME.c is in.
TESTED  := $(wildcard tests/unit/*/*.c tests/e2e/*.c)
CASES   := $(foreach c,$(TESTED),$(if $(filter test_%,$(notdir $c)),$c))
TESTS   := $(patsubst %.c,$(BUILD)/tests/%,$(notdir $(CASES)))
HELPERS := $(patsubst %.c,$(BUILD)/%.o,$(filter-out $(CASES) %_cpu.c,$(TESTED))) \
           $(foreach i,$(ISAS),$(patsubst %.c,$(BUILD)/%.$(i).o,$(filter %_cpu.c,$(TESTED))))

hone: $(BUILD)/hone FORCE # of these options, whichever were built last
	$(Q)cmp -s $< $@ || { cp -f $< $@.new && mv -f $@.new $@; }
include ops/cuda.mk
$(BUILD)/hone: $(OBJECTS) $(CUDA_OBJECTS)
	$(Q)echo "  link  $@" && $(CC) -o $@ $^ $(LINK) $(CUDA_LINK) && echo '$@' > build/newest
$(BUILD)/%.o: %.c
	$(Q)mkdir -p $(@D) && echo "  cc    $<" && $(CC) $(FLAGS) -MMD -MP -c -o $@ $<
define kernel_rule
$(BUILD)/%.$(1).o: %.c
	$(Q)mkdir -p $$(@D) && echo "  cc    $$< ($(1))" && $(CC) $(FLAGS) $(FLAGS_$(1)) -DISA=$(1) -DISA_IS_$(1) -MMD -MP -c -o $$@ $$<
endef
$(foreach i,$(ISAS),$(eval $(call kernel_rule,$(i))))

# What build_info.c states; rebuilt when it changes. The difference is named by its SHA-256.
FACTS := -DHONE_COMMIT='"$(shell git rev-parse HEAD 2>/dev/null || echo unknown)"' -DHONE_FLAGS='"$(OPT) $(SAN)"' \
         -DHONE_DIFF='"$(shell test -z "$$(git status --porcelain -uno 2>/dev/null)" && echo clean || git diff HEAD | sha256sum | cut -c1-64)"'
$(BUILD)/facts: FORCE
	$(Q)mkdir -p $(@D) && echo '$(subst ','\'',$(FACTS))' | cmp -s - $@ || echo '$(subst ','\'',$(FACTS))' > $@
$(BUILD)/train/build_info.o: train/build_info.c $(BUILD)/facts
	$(Q)mkdir -p $(@D) && $(CC) $(FLAGS) $(FACTS) -MMD -MP -c -o $@ $<
$(BUILD)/train/log/report_parts.o: $(wildcard train/log/report/*)
$(BUILD)/train/serve/page_parts.o: $(wildcard train/serve/page/*)
FORCE:

$(BUILD)/libhone.a: $(LIBRARY)
	$(Q)rm -f $@ && ar rcs $@ $^
vpath test_%.c $(sort $(dir $(CASES)))
tests/test_%.c: ; # where they were once: dependency files of older builds name them
$(BUILD)/tests/%: %.c $(BUILD)/libhone.a $(HELPERS)
	$(Q)mkdir -p $(@D) && echo "  test  $<" && $(CC) $(FLAGS) $(HDF5) -MMD -MP -o $@ $< $(filter %.o,$^) $(BUILD)/libhone.a $(LINK) $(HDF5) -lcmocka -lstdc++ -lm
$(BUILD)/tests/gpu/sass: tests/gpu/sass.c $(BUILD)/libhone.a
	$(Q)mkdir -p $(@D) && $(CC) $(FLAGS) -MMD -MP -o $@ $^ $(LINK)
.SECONDARY: $(HELPERS)

.PHONY: test test-all check bench demo clean help deps format fuzz
test: hone $(BUILD)/hone-shim $(BUILD)/cuda_folder $(BUILD)/tests/gpu/sass $(TESTS) check ## everything that must hold, under 10 minutes on 2 cores
	$(Q)tests/run.sh $(BUILD)
test-all: ## the slow matrix: sanitizers, valgrind, fuzzers, every bit test
	$(Q)tests/run-all.sh
check: ## layering, widths and file rules
	$(Q)tests/check.sh
bench: hone ## speed of operations and training steps against this machine's measured peak
	$(Q)./hone bench
demo: hone ## the main job, start to end
	$(Q)tests/demo.sh
deps: ## install what is missing (Debian packages; asks for root through sudo where needed)
	$(Q)tests/deps.sh
format: ## clang-format every file
	$(Q)clang-format -i $$(git ls-files '*.c' '*.h')
fuzz: ## NAME=model SECONDS=60: one fuzzer for a while
	$(Q)tests/fuzz.sh $(NAME) $(SECONDS)
clean: ## remove the build folder
	rm -rf build hone
help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' Makefile ops/cuda.mk

-include $(shell find build -name '*.d' 2>/dev/null)

# hone: `make` builds ./hone; `make test` proves it; `make help` lists the rest.
# Options: DEBUG=1 (NaN fills, red zones, -O1), SAN=address,undefined | thread, WERROR=1, CC=clang, V=1.
# Objects live in build/HASH-OF-FLAGS, so that changing an option never mixes objects.
.DEFAULT_GOAL := hone
CC      := $(if $(filter default,$(origin CC)),gcc,$(CC))
FOLDERS := base ops autograd data checkpoints recipes/models recipes/models/families train
LIBS    := hdf5 libzstd libpcre2-8 libutf8proc jansson yaml-0.1 libcrypto zlib

OPT   := $(if $(DEBUG),-O1 -DHONE_DEBUG,$(if $(SAN),-O1,-O3))
WARN  := -Wall -Wextra -Wshadow -Wconversion -Wno-sign-conversion -Wstrict-prototypes -Wvla $(if $(WERROR),-Werror)
FLAGS := -std=c17 -D_GNU_SOURCE -g -fno-math-errno -ffp-contract=off -fno-omit-frame-pointer $(OPT) $(WARN) \
         $(if $(SAN),-fsanitize=$(SAN) -fno-sanitize-recover=all) -I. $(shell pkg-config --cflags $(LIBS))
LINK  := $(if $(SAN),-fsanitize=$(SAN)) $(shell pkg-config --libs $(LIBS)) -lpthread -lm
BUILD := build/$(shell printf '%s' '$(CC) $(FLAGS)' | cksum | cut -d' ' -f1)
Q     := $(if $(V),,@)

# Every *_cpu.c is compiled once per instruction set (base/v16.h); the program picks one at start (base/isa.c).
ISAS        := plain avx2 avx512 avx512bf16
AVX512      := -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx2 -mfma -mprefer-vector-width=512
FLAGS_plain :=
FLAGS_avx2  := -mavx2 -mfma
FLAGS_avx512 := $(AVX512)
FLAGS_avx512bf16 := $(AVX512) -mavx512bf16

# The *_cuda.cu files: by nvcc where it is on PATH (CUDA= turns it off), and by g++ for the tests (tests/shim).
CUDA   := $(shell command -v nvcc 2>/dev/null)
ARCHES := $(foreach a,80 90 90a,-gencode arch=compute_$(a),code=sm_$(a))
NVFLAGS := -std=c++20 -O3 $(ARCHES) -ftz=true -fmad=false -prec-div=true -prec-sqrt=true -I. -Werror all-warnings \
           -Xcompiler -Wall,-Wextra,-Wno-missing-field-initializers,-fno-exceptions,-fno-rtti,-fno-threadsafe-statics \
           --resource-usage --no-compress
SHIM    := -std=c++20 -g -O1 -mavx2 -mfma -ffp-contract=off -DHONE_SHIM -I. -Wall -Wextra -Wno-unknown-pragmas \
           -Wno-missing-field-initializers $(if $(WERROR),-Werror)
CU      := $(wildcard ops/*.cu)
CUDA_OBJECTS := $(if $(CUDA),$(CU:%.cu=$(BUILD)/%.cu.o))
CUDA_LINK    := $(if $(CUDA),-L$(dir $(CUDA))../lib64 -lcudart_static -ldl -lrt -l:libstdc++.a)
SHIM_LIBRARY := $(patsubst %.cc,$(BUILD)/%.o,$(wildcard tests/shim/*.cc))
SHIM_OBJECTS := $(CU:%.cu=$(BUILD)/shim/%.o) $(SHIM_LIBRARY)

KERNELS := $(wildcard $(FOLDERS:%=%/*_cpu.c))
SOURCES := $(filter-out $(KERNELS),$(wildcard $(FOLDERS:%=%/*.c)))
OBJECTS := $(SOURCES:%.c=$(BUILD)/%.o) $(foreach i,$(ISAS),$(KERNELS:%.c=$(BUILD)/%.$(i).o))
LIBRARY := $(filter-out $(BUILD)/train/main.o,$(OBJECTS))
TESTS   := $(patsubst tests/%.c,$(BUILD)/tests/%,$(wildcard tests/test_*.c))
HELPERS := $(patsubst %.c,$(BUILD)/%.o,$(filter-out tests/test_%.c tests/fuzz_%.c %_cpu.c,$(wildcard tests/*.c))) \
           $(foreach i,$(ISAS),$(patsubst %.c,$(BUILD)/%.$(i).o,$(wildcard tests/*_cpu.c)))

hone: $(BUILD)/hone
	$(Q)cp -f $< $@.new && mv -f $@.new $@
$(BUILD)/hone: $(OBJECTS) $(CUDA_OBJECTS)
	$(Q)echo "  link  $@" && $(CC) -o $@ $^ $(LINK) $(CUDA_LINK) && echo '$@' > build/newest
$(BUILD)/hone-shim: $(OBJECTS) $(CU:%.cu=$(BUILD)/shim-fast/%.o) $(SHIM_LIBRARY)
	$(Q)echo "  link  $@" && $(CC) -o $@ $^ $(LINK) -lstdc++
$(BUILD)/%.cu.o: %.cu
	$(Q)mkdir -p $(@D) && echo "  nvcc  $<" && $(CUDA) $(NVFLAGS) -MD -MF $(@:.o=.d) -MT $@ -c -o $@ $< > $(@:.o=.txt) 2>&1 || { cat $(@:.o=.txt); exit 1; }
$(BUILD)/shim/%.o: %.cu
	$(Q)mkdir -p $(@D) && echo "  g++   $<" && g++ -x c++ $(SHIM) -fsanitize=thread,alignment -MMD -MP -c -o $@ $<
$(BUILD)/shim-fast/%.o: %.cu
	$(Q)mkdir -p $(@D) && echo "  g++   $<" && g++ -x c++ $(SHIM) -O2 -MMD -MP -c -o $@ $<
$(BUILD)/tests/shim/%.o: tests/shim/%.cc
	$(Q)mkdir -p $(@D) && echo "  g++   $<" && g++ $(SHIM) -O2 -MMD -MP -c -o $@ $<
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
$(BUILD)/train/report_parts.o: $(wildcard train/report/*)
FORCE:

$(BUILD)/libhone.a: $(LIBRARY)
	$(Q)rm -f $@ && ar rcs $@ $^
$(BUILD)/tests/%: tests/%.c $(BUILD)/libhone.a $(HELPERS)
	$(Q)mkdir -p $(@D) && echo "  test  $<" && $(CC) $(FLAGS) -MMD -MP -o $@ $< $(filter %.o,$^) $(BUILD)/libhone.a $(LINK) -lcmocka -lstdc++ -lm
$(filter $(BUILD)/tests/test_cuda%,$(TESTS)): $(SHIM_OBJECTS)
$(BUILD)/tests/test_cuda_shim: $(BUILD)/shim/tests/shim/probes.o
$(BUILD)/gpu/%: tests/%.c $(BUILD)/libhone.a $(HELPERS) $(BUILD)/tests/gpu/real.o $(CUDA_OBJECTS)
	$(Q)mkdir -p $(@D) && $(CC) $(FLAGS) -MMD -MP -o $@ $< $(filter %.o,$^) $(BUILD)/libhone.a $(LINK) $(CUDA_LINK) -lcmocka -lm
.SECONDARY: $(HELPERS) $(BUILD)/tests/gpu/real.o

.PHONY: test test-all check bench demo clean help deps format fuzz cuda-report gpu-bundle gpu-test gpu-bench
test: hone $(BUILD)/hone-shim $(BUILD)/tests/gpu/sass $(TESTS) check ## everything that must hold, under 10 minutes on 2 cores
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
cuda-report: hone $(BUILD)/tests/gpu/sass ## registers, spills, shared memory, occupancy and tensor instructions of each CUDA kernel
	$(Q)tests/cuda_report.sh $(BUILD)
gpu-bundle: hone $(BUILD)/gpu/test_cuda $(BUILD)/gpu/test_cuda_run $(BUILD)/gpu/test_golden ## for a bare machine with a GPU
	$(Q)tests/gpu/bundle.sh $(BUILD)
gpu-test gpu-bench: gpu-bundle ## on a machine with a GPU: every kernel and whole runs; speeds
	$(Q)build/gpu-bundle/$(@:gpu-%=%).sh
clean: ## remove the build folder
	rm -rf build hone
help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

-include $(shell find build -name '*.d' 2>/dev/null)

# cuda.mk: the *_cuda.cu files: by nvcc where it is on PATH (CUDA= turns it off), and by g++ for the tests, which run them
# on the CPU (tests/shim): once with every access checked, once plain, for the program. None of it depends on the
# options of the C files, so that these objects are shared by all build folders.
# Machine code for sm_80 (also 86, 89) and sm_90; PTX of the latter, which drivers compile for what is newer.
ARCHES := -gencode arch=compute_80,code=sm_80 -gencode arch=compute_90,code=[sm_90,compute_90]
NVFLAGS := -std=c++20 -O3 $(ARCHES) -ftz=true -fmad=false -prec-div=true -prec-sqrt=true -I. -Werror all-warnings \
           -Xcompiler -Wall,-Wextra,-Wno-missing-field-initializers,-fno-exceptions,-fno-rtti,-fno-threadsafe-statics \
           --resource-usage --no-compress
SHIM    := -std=c++20 -g -mavx2 -mfma -ffp-contract=off -DHONE_SHIM -I. -Wall -Wextra -Wno-unknown-pragmas \
           -Wno-missing-field-initializers -Werror
NVCC_DIR := build/cuda-$(shell printf '%s' '$(CUDA) $(NVFLAGS)' | cksum | cut -d' ' -f1)
SHIM_DIR := build/shim-$(shell printf '%s' '$(SHIM)' | cksum | cut -d' ' -f1)

CU           := $(wildcard ops/*.cu ops/*/*.cu)
CUDA_OBJECTS := $(if $(CUDA),$(CU:%.cu=$(NVCC_DIR)/%.o))
CUDA_LINK    := $(if $(CUDA),-L$(dir $(CUDA))../lib64 -lcudart_static -ldl -lrt -l:libstdc++.a)
SHIM_LIBRARY := $(patsubst %.cc,$(SHIM_DIR)/%.o,$(wildcard tests/shim/*.cc))
SHIM_OBJECTS := $(CU:%.cu=$(SHIM_DIR)/checked/%.o) $(SHIM_LIBRARY)

$(NVCC_DIR)/%.o: %.cu
	$(Q)mkdir -p $(@D) && echo "  nvcc  $<" && $(CUDA) $(NVFLAGS) -MD -MF $(@:.o=.d) -MT $@ -c -o $@ $< > $(@:.o=.txt) 2>&1 || { cat $(@:.o=.txt); rm -f $@; exit 1; }
$(SHIM_DIR)/checked/%.o: %.cu
	$(Q)mkdir -p $(@D) && echo "  g++   $< (checked)" && g++ -x c++ $(SHIM) -O1 -fsanitize=thread,alignment -MMD -MP -c -o $@ $<
$(SHIM_DIR)/plain/%.o: %.cu
	$(Q)mkdir -p $(@D) && echo "  g++   $<" && g++ -x c++ $(SHIM) -O2 -MMD -MP -c -o $@ $<
$(SHIM_DIR)/%.o: %.cc
	$(Q)mkdir -p $(@D) && echo "  g++   $<" && g++ $(SHIM) -O2 -MMD -MP -c -o $@ $<

$(BUILD)/hone-shim: $(OBJECTS) $(CU:%.cu=$(SHIM_DIR)/plain/%.o) $(SHIM_LIBRARY)
	$(Q)echo "  link  $@" && $(CC) -o $@ $^ $(LINK) -lstdc++
$(filter $(BUILD)/tests/test_cuda%,$(TESTS)): $(SHIM_OBJECTS)
$(filter $(BUILD)/tests/test_cuda%,$(TESTS)): private LINK += -Wl,--wrap=__ubsan_handle_type_mismatch_v1
$(BUILD)/tests/test_cuda_shim: $(SHIM_DIR)/checked/tests/shim/probes.o
$(BUILD)/tests/test_cuda_launches: private LINK += -Wl,--wrap=mem_new,--wrap=mem_free,--wrap=mem_available,--wrap=lora_start
$(SHIM_DIR)/tests/shim/launch.o: tests/shim/kernels.tsv
$(BUILD)/tests/test_cuda_ftz: $(SHIM_DIR)/checked/tests/gpu/ftz.o
$(BUILD)/gpu/test_cuda_ftz: $(if $(CUDA),$(NVCC_DIR)/tests/gpu/ftz.o)
$(BUILD)/gpu/%: %.c $(BUILD)/libhone.a $(HELPERS) $(BUILD)/tests/gpu/real.o $(CUDA_OBJECTS)
	$(Q)mkdir -p $(@D) && $(CC) $(FLAGS) -MMD -MP -o $@ $< $(filter %.o,$^) $(BUILD)/libhone.a $(LINK) $(CUDA_LINK) -lcmocka -lm
$(BUILD)/cuda_folder: $(CUDA_OBJECTS)
	$(Q)mkdir -p $(@D) && echo '$(if $(CUDA),$(NVCC_DIR))' > $@
	$(Q)[ -z '$(CUDA)' ] || $(CUDA) --version | sed -n 's/.*release.* V//p' > $(NVCC_DIR)/version
.SECONDARY: $(BUILD)/tests/gpu/real.o

.PHONY: cuda-report gpu-bundle gpu-test gpu-bench
cuda-report: $(BUILD)/cuda_folder $(BUILD)/tests/gpu/sass ## registers, spills, tensor instructions of each CUDA kernel
	$(Q)tests/gpu/cuda_report.sh $(BUILD)
gpu-bundle: hone $(BUILD)/gpu/test_cuda $(BUILD)/gpu/test_cuda_ftz $(BUILD)/gpu/test_cuda_run $(BUILD)/gpu/test_golden ## for a bare machine with a GPU
	$(Q)tests/gpu/bundle.sh $(BUILD)
gpu-test: gpu-bundle ## on a machine with a GPU: every kernel and whole runs against the CPU's bits
	$(Q)build/gpu-bundle/test.sh
gpu-bench: gpu-bundle ## on a machine with a GPU: speeds
	$(Q)build/gpu-bundle/bench.sh

/* sass.c: counts instructions in the GPU code inside object files, without a disassembler: nvcc's
 * toolkit may come without one. Prints 'KERNEL INSTRUCTIONS TENSOR FMA LOCAL' for each kernel
 * compiled for sm_90.
 *
 * The code of a kernel is the section .text.KERNEL of an ELF image for machine 190 (EM_CUDA) that
 * lies uncompressed in the object (nvcc --no-compress). An instruction is 16 bytes since Volta; its
 * low 9 bits name it, the 3 above the form of its operands: 0x03c HMMA, 0x023 FFMA, 0x187 STL,
 * 0x183 LDL (found by comparing with cuobjdump's listing of small kernels). */
#include <elf.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EM_CUDA_IMAGE = 190, SM = 90 };

static int section_print(const char *name, const uint8_t *code, uint64_t bytes) {
    long tensor = 0, fma = 0, local = 0;
    for (uint64_t i = 0; i + 16 <= bytes; i += 16) {
        uint64_t word;
        memcpy(&word, code + i, 8);
        const unsigned op = word & 0x1ff;
        tensor += op == 0x03c, fma += op == 0x023, local += op == 0x187 || op == 0x183;
    }
    return printf("%s %llu %ld %ld %ld\n", name, (unsigned long long)bytes / 16, tensor, fma,
                  local);
}

static void image_print(const uint8_t *p, uint64_t left) {
    Elf64_Ehdr h;
    memcpy(&h, p, sizeof h);
    if (h.e_machine != EM_CUDA_IMAGE || (h.e_flags >> 8 & 0xff) != SM) return;
    for (int i = 0; i < h.e_shnum; i++) {
        Elf64_Shdr s, names;
        if (h.e_shoff + (uint64_t)h.e_shnum * sizeof s > left) return;
        memcpy(&s, p + h.e_shoff + (uint64_t)i * sizeof s, sizeof s);
        memcpy(&names, p + h.e_shoff + (uint64_t)h.e_shstrndx * sizeof s, sizeof s);
        const char *name = (const char *)p + names.sh_offset + s.sh_name;
        if (s.sh_offset + s.sh_size <= left && !strncmp(name, ".text.", 6))
            section_print(name + 6, p + s.sh_offset, s.sh_size);
    }
}

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        FILE *f = fopen(argv[i], "rb");
        if (!f || fseek(f, 0, SEEK_END)) return perror(argv[i]), 1;
        const long size = ftell(f);
        uint8_t *data = malloc((size_t)size);
        rewind(f);
        if (!data || fread(data, 1, (size_t)size, f) != (size_t)size) return perror(argv[i]), 1;
        for (long at = 1; at + (long)sizeof(Elf64_Ehdr) < size; at++)
            if (!memcmp(data + at, ELFMAG, SELFMAG)) image_print(data + at, (uint64_t)(size - at));
        free(data), fclose(f);
    }
    return 0;
}

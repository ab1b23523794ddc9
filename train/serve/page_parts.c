/* page_parts.c: the page for people, inside the program, as files of page/; why so is said in
 * train/log/report_parts.c. */
#include "train/serve/serve_int.h"

#define PART(name, file)                                                                           \
    __asm__(".pushsection .rodata\n.global " #name "\n" #name ":\n"                                \
            ".incbin \"train/serve/page/" file "\"\n.byte 0\n.popsection\n")

PART(page_html, "page.html");
PART(page_style, "page.css");
PART(page_script, "page.js");

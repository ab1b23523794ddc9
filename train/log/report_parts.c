/* report_parts.c: the page's template, style and script, which the program carries inside itself.
 *
 * They are files of their own (report/) so that editors and browsers can work on them; .incbin puts
 * their bytes into the object. Rejected: string literals, which nobody can edit, and files looked
 * up at run time, which would tie the program to where it was built. The paths are relative to the
 * repository root, where make compiles. */
#include "train/log/report_int.h"

#define PART(name, file)                                                                           \
    __asm__(".pushsection .rodata\n.global " #name "\n" #name ":\n"                                \
            ".incbin \"train/log/report/" file "\"\n.byte 0\n.popsection\n")

PART(report_page, "page.html");
PART(report_style, "page.css");
PART(report_script, "page.js");

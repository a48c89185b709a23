# One stub for each CPU exception, 16 bytes apart: they bring the stack into one shape (vector,
# error code or 0, what the CPU pushed) and never return.

.balign 16
.global exception_stubs
exception_stubs:
.set vector, 0
.rept 32
    .balign 16
    .if !((1 << vector) & 0x60227d00)   # these vectors push an error code themselves
    pushq $0
    .endif
    pushq $vector
    jmp any_exception
    .set vector, vector + 1
.endr

any_exception:
    cld
    movq %rsp, %rdi
    andq $-16, %rsp
    call exception
    ud2

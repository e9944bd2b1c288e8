# A toolchain file: cross-compile for 64-bit Arm on Linux with Debian's g++-aarch64-linux-gnu, and run tests under
# qemu-user (qemu-user, libc6-arm64-cross, libstdc++6-arm64-cross).
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64 -L /usr/aarch64-linux-gnu)

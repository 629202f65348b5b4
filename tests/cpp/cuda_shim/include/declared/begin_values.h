// How a list of values becomes enumerations. (No guard: included again for each list.)
#define SHIM_ENUM(type) enum type {
#define SHIM_CONSTANTS enum {
#define SHIM_VALUE(name, value) name = value,
#define SHIM_END };

// Visibility of the symbols of libbrockett, which is built with hidden visibility.
#pragma once

#define BROCKETT_EXPORT __attribute__((visibility("default")))

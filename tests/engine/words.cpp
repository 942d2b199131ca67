// Words as llama.cpp cuts them: reads the number of expressions, the expressions, and texts, a line each in hexadecimal;
// writes a line for each text, its words in hexadecimal.
#include "unicode.h"

#include <cstdio>
#include <iostream>
#include <string>
#include <vector>

static std::string unhex(const std::string & line) {
    std::string text;
    for (size_t at = 0; at + 1 < line.size(); at += 2) {
        text.push_back((char) std::stoi(line.substr(at, 2), nullptr, 16));
    }
    return text;
}

int main() {
    std::string line;
    std::getline(std::cin, line);
    std::vector<std::string> expressions(std::stoul(line));
    for (auto & expression : expressions) {
        std::getline(std::cin, line);
        expression = unhex(line);
    }
    while (std::getline(std::cin, line)) {
        for (const auto & word : unicode_regex_split(unhex(line), expressions, false)) {
            for (const unsigned char byte : word) {
                printf("%02x", byte);
            }
            printf(" ");
        }
        printf("\n");
    }
}

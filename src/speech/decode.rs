//! The digit decoder: beam and trie walk over any model of the next digit.

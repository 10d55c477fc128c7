//! docs/API.md's pages, run as they are pasted.

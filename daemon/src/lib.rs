//! The agent of Sidetrack and its command line.

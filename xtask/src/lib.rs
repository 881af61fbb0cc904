//! Set-up and builds.

//! Nothing grows without bound, and what is full has an outcome that is counted.

mod connections;
mod full;
mod held;
mod level;
mod pods;
mod routes;
mod slow;

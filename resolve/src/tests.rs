mod any;
mod objects;
mod rules;
mod world;

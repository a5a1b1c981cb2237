mod layer;
mod metadata;
mod problem_details;

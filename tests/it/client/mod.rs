mod layers;
mod new_proof;

"""What ``sarathi loadtest`` measures, held against servers that know better, and against ``vllm bench serve``."""

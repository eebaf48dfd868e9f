"""Models as files: what a folder holds, what it can do, and how a reference becomes a folder.

Every refusal of a model is a ``ModelFailure`` with one of these codes:

    model_missing          no such folder, repository or version, or no config.json in it
    model_refused          not on the allow-list
    model_hub_unreachable  the hub did not answer, and there is no complete local copy
    model_damaged          an object is missing or has other bytes than were registered
    model_changed          the objects changed while they were fetched, or an adapter's base did
    model_too_large        larger than the whole cache of this machine
    model_not_safetensors  weights only as pickle
    model_no_tokenizer     no tokenizer files
    model_remote_code      the config requires its own code to be run
    model_unreadable       bad JSON, a field of a wrong type, a truncated weights file
    model_has_no_head      no classification head, and no labels to compare with
    model_not_an_encoder   embeddings are needed, but the model generates
    model_not_a_classifier the head is a regression, or has no entailment for a hypothesis
    model_several_outputs  a score is asked of a head with several outputs
    model_not_a_generator  generate, but the model has no causal language model's head
    model_not_text2text    text2text, but the model is not an encoder with a decoder
    model_no_chat_template a chat, but the model's tokenizer has no template for one
    model_too_short        more new tokens, or a longer prompt, than the model can hold
    model_no_start_token   an encoder with a decoder, without a start token for the decoder
    model_few_embeddings   its tokenizer has token ids beyond its embedding table
    generation_unsupported its files ask for a generation mode that is not supported
    model_no_pipeline      its architecture is for another task, or for none
    model_no_preprocessor  rows are files, but the folder has no preprocessor for them
    pipeline_refused       parameters that the pipeline does not take, or a package it lacks
    language_unknown       a language that the model's tokenizer has no token for
    model_too_narrow       more dimensions than the model's vectors have
    model_unsupported      its embeddings need a step that is not implemented here
    int8_needs_cpu         int8 on a worker whose device, or whose PyTorch, does not support it
    model_needs_devices    larger than all accelerators of a worker's process together
    explain_unavailable    explanations on a worker without captum
    model_load_timeout     loading it did not finish within its time limit, twice
    template_timeout       its chat template did not finish for a first text
    tokenizer_timeout      its tokenizer did not finish for a first text
    model_ends_worker      the worker's process died before the first row, twice
    model_raises           it raises for a text at load, or alike for nearly all rows, each alone
    label_without_tokens   a label from which the model's tokenizer makes no tokens
    labels_indistinguishable   labels with the same tokens, or the same embedding
    model_other_labels     label texts that a version with its own head was not trained on
    model_other_task       an evaluation for another task than the version was trained for
"""

QUESTION_KINDS = ("heard", "unheard")
SPOKEN = ("sqa_heard", "sqa_unheard", "sqa_heard_aloud", "sqa_unheard_aloud")


def write(*a):
    return []
